# Lets CMake use the ROS 2 wheels of a Python environment as if they were a ROS install. Injected, never included:
#   cmake -DCMAKE_PROJECT_INCLUDE=<this file> ...        (pip builds: CMAKE_PROJECT_TOP_LEVEL_INCLUDES)
# On a machine with a real ROS install it is not needed and finds nothing to do.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
          "import ament_cmake_test, pathlib; print(pathlib.Path(ament_cmake_test.__file__).resolve().parents[4])"
  OUTPUT_VARIABLE _ros_wheels_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE _ros_wheels_missing)
if(_ros_wheels_missing EQUAL 0)
  list(PREPEND CMAKE_PREFIX_PATH "${_ros_wheels_prefix}")
  set(ENV{AMENT_PREFIX_PATH} "${_ros_wheels_prefix}")
endif()

# The wheels' exported targets name the Python headers of the machine that built them (/opt/python/...), which CMake
# refuses as non-existent. The headers are found by find_package(Python3) anyway, so the dead entries are dropped, after
# the project has imported its targets.
function(_qvla_drop_foreign_python_headers)
  get_property(_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    get_target_property(_includes ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(_includes AND _includes MATCHES "/opt/python/")
      list(FILTER _includes EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_includes}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL _qvla_drop_foreign_python_headers)
