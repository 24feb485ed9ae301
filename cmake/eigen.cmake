# Eigen: the one that is installed, else the headers that the build requirement cmeel-eigen brings. Its
# prefix lies inside site-packages, where find_package does not look, so Python is asked for it.
set(eigen_named "${Eigen3_DIR}") # which a search for the other version forgets
foreach(version IN ITEMS 5 3.4) # a package is found only for its own major number
    if(NOT Eigen3_FOUND)
        find_package(Eigen3 ${version} CONFIG QUIET HINTS ${eigen_named})
    endif()
endforeach()
if(NOT Eigen3_FOUND)
    find_package(Python 3.11 QUIET COMPONENTS Interpreter)
    execute_process(
        COMMAND
            ${Python_EXECUTABLE} -c
            "import importlib.metadata as m; d = m.distribution('cmeel-eigen'); print(next(d.locate_file(f).resolve().parent for f in d.files if f.name == 'Eigen3Config.cmake').as_posix())"
        OUTPUT_VARIABLE eigen_config
        ERROR_QUIET
        OUTPUT_STRIP_TRAILING_WHITESPACE)
    find_package(Eigen3 CONFIG QUIET PATHS ${eigen_config} NO_DEFAULT_PATH)
endif()
if(NOT Eigen3_FOUND)
    message(FATAL_ERROR "Eigen 3.4 or newer was not found: pip install cmeel-eigen, or apt install libeigen3-dev")
endif()
message(STATUS "Eigen ${Eigen3_VERSION}: ${Eigen3_DIR}")
