# Python's headers and pybind11. Each that is missing is named in one sentence, with what to install.
find_package(Python 3.11 QUIET COMPONENTS Interpreter Development.Module)
if(NOT Python_Interpreter_FOUND)
    message(FATAL_ERROR "Python 3.11 or newer was not found: install it, or name it by -DPython_EXECUTABLE=")
endif()
if(NOT Python_Development.Module_FOUND)
    message(FATAL_ERROR "The headers of ${Python_EXECUTABLE} were not found: apt install python3-dev or dnf install "
                        "python3-devel")
endif()
find_package(pybind11 3 CONFIG QUIET)
if(NOT pybind11_FOUND)
    message(FATAL_ERROR "pybind11 3 or newer was not found: pip install \"pybind11>=3\", and name its folder by "
                        "-Dpybind11_DIR=\"$(python -m pybind11 --cmakedir)\"")
endif()
