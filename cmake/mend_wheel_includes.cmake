# The ROS wheels of PyPI export targets with include folders of the machine that built them (/opt/python/...). CMake refuses
# to generate when such a folder is missing, so missing ones are dropped here. FindPython finds Python's own headers.
# A real ROS install has no such folders, and its targets stay unchanged.

function(mend_wheel_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders MATCHES "/opt/python/")
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      if(NOT folder MATCHES "^/opt/python/" OR EXISTS "${folder}")
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()

# Deferred: the targets exist only after the last find_package.
cmake_language(DEFER CALL mend_wheel_includes)
