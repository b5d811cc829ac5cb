target_sources(sgm PRIVATE core/activation.cpp core/bytes.cpp core/captured_step.cpp core/context.cpp core/precision.cpp core/config.cpp core/config_validate.cpp core/toml_text.cpp)
