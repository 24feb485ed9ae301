# Eigen: the one that is installed, else the headers that the build requirement cmeel-eigen brings. Its
# prefix lies inside site-packages, where find_package does not look, so Python is asked for it.
find_package(Eigen3 CONFIG QUIET)
if(NOT TARGET Eigen3::Eigen)
    find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
    execute_process(
        COMMAND
            ${Python_EXECUTABLE} -c
            "import importlib.metadata as m; d = m.distribution('cmeel-eigen'); print(next(d.locate_file(f).resolve().parent for f in d.files if f.name == 'Eigen3Config.cmake').as_posix())"
        OUTPUT_VARIABLE eigen_config
        ERROR_QUIET
        OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT eigen_config)
        message(FATAL_ERROR "Eigen 3.4 or newer was not found: install it, or pip install cmeel-eigen")
    endif()
    find_package(Eigen3 CONFIG REQUIRED PATHS ${eigen_config} NO_DEFAULT_PATH)
endif()
if(Eigen3_VERSION VERSION_LESS 3.4)
    message(FATAL_ERROR "Eigen ${Eigen3_VERSION} is too old: 3.4 or newer is needed")
endif()
message(STATUS "Eigen ${Eigen3_VERSION}: ${Eigen3_DIR}")
