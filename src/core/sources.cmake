target_sources(sgm PRIVATE core/config.cpp core/config_validate.cpp)
