# One helper per kind of target; warnings are errors in our code, not in others' headers.

function(sgm_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(
    ${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                      -Werror -fno-math-errno>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 warns of overlap inside std::string's own operator+ (PR 105651).
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  endif()
  if(SGM_NATIVE)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
  if(SGM_SANITIZE)
    # At a fixed address: a third of a program's start went into moving what the sanitizers describe.
    set(flags -fno-omit-frame-pointer -fno-pie -fsanitize=address -fsanitize=undefined -fno-sanitize-recover=all)
    list(TRANSFORM flags PREPEND -Xcompiler= OUTPUT_VARIABLE host_flags)  # nvcc's, for the host's half of a .cu file
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>"
                                             "$<$<COMPILE_LANGUAGE:CUDA>:${host_flags}>")
    target_link_options(${target} PRIVATE -no-pie -fsanitize=address,undefined)
  endif()
endfunction()

# For sources that are compiled more often than they compute: tests, the command line. A fifth of their compilation went
# into checks that AddressSanitizer makes, too, or that find wrong casts, which these have no cause to make.
if(SGM_SANITIZE)
  set(SGM_QUICK_COMPILE -O0 -fno-sanitize=alignment,null,object-size,vptr)
else()
  set(SGM_QUICK_COMPILE -Og)
endif()

# sgm_test(name part...): tests/test_<part>.cpp in one program with GoogleTest, every TEST registered with ctest.
function(sgm_test name)
  list(TRANSFORM ARGN PREPEND test_ OUTPUT_VARIABLE sources)
  list(TRANSFORM sources APPEND .cpp)
  add_executable(${name} ${sources})
  sgm_compile_options(${name})
  target_link_libraries(${name} PRIVATE sgm::sgm GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${name} PRIVATE SGM_TEST_DATA="${CMAKE_CURRENT_SOURCE_DIR}/golden"
                                             SGM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_precompile_headers(${name} REUSE_FROM test_headers)
  target_compile_options(${name} PRIVATE ${SGM_QUICK_COMPILE})
  # Threads that wait for others must not spin: the machine may be busy with other tests.
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600 ENVIRONMENT OMP_WAIT_POLICY=passive)
endfunction()

# sgm_fuzz(name): tests/fuzz/<name>.cpp under our mutation loop; short in plain builds, a minute under the sanitizers.
function(sgm_fuzz name)
  add_executable(${name} fuzz/${name}.cpp fuzz/driver.cpp)
  sgm_compile_options(${name})
  target_link_libraries(${name} PRIVATE sgm::sgm ${ARGN})
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src)
  if(SGM_SANITIZE)
    set(seconds 60)
  else()
    set(seconds 2)
  endif()
  add_test(NAME ${name} COMMAND ${name} --seconds ${seconds})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 180)
endfunction()
