# Lets CMake use the ROS 2 wheels of a Python environment as if they were a ROS install. Injected, never included:
#   cmake -DCMAKE_PROJECT_INCLUDE=<this file> ...        (setup.py does)
# On a machine with a real ROS install it is not needed.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
          "import ament_cmake_test, pathlib; print(pathlib.Path(ament_cmake_test.__file__).resolve().parents[4])"
  OUTPUT_VARIABLE _ros_wheels_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE _ros_wheels_missing)
if(_ros_wheels_missing EQUAL 0)
  list(PREPEND CMAKE_PREFIX_PATH "${_ros_wheels_prefix}")
  set(ENV{AMENT_PREFIX_PATH} "${_ros_wheels_prefix}")
endif()

# Both repairs wait until the project has its targets.
function(_qvla_repair_include_directories)
  # The wheels' exported targets name the Python headers of the machine that built them (/opt/python/...), which CMake
  # refuses as non-existent. find_package(Python3) finds the headers anyway, so the dead entries are dropped.
  get_property(_imported DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _imported)
    get_target_property(_includes ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(_includes AND _includes MATCHES "/opt/python/")
      list(FILTER _includes EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_includes}")
    endif()
  endforeach()
  # rosidl exports NumPy's headers by absolute path; CMake refuses that when the environment lies in the source tree
  # (.venv). They matter to this build only.
  if(TARGET ${PROJECT_NAME}__rosidl_generator_py)
    get_target_property(_includes ${PROJECT_NAME}__rosidl_generator_py INTERFACE_INCLUDE_DIRECTORIES)
    list(TRANSFORM _includes REPLACE "^(/.*)$" "$<BUILD_INTERFACE:\\1>")
    set_target_properties(${PROJECT_NAME}__rosidl_generator_py PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_includes}")
  endif()
endfunction()
cmake_language(DEFER CALL _qvla_repair_include_directories)
