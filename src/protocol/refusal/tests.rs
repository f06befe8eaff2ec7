use super::*;

#[test]
fn each_path_of_triton_s_is_told_what_to_do_instead() {
    for (path, said) in [
        ("/v2/repository/models/m/load", REPOSITORY),
        ("/v2/repository/models/m/unload", REPOSITORY),
        ("/v2/repository/r/models/m/load", REPOSITORY),
        ("/v2/systemsharedmemory/status", SHARED_MEMORY),
        ("/v2/systemsharedmemory/region/r/register", SHARED_MEMORY),
        ("/v2/cudasharedmemory/unregister", SHARED_MEMORY),
        ("/v2/trace/setting", TRACE),
        ("/v2/models/m/trace/setting", TRACE),
        ("/v2/logging", LOG),
        ("/v2/models/m/generate", GENERATE),
        ("/v2/models/m/versions/1/generate_stream", GENERATE),
    ] {
        assert_eq!(of_path(path), Some(said), "{path}");
    }
    for path in ["", "/", "/v2/x", "/v1/models/m:predict", "//", &"/v2".repeat(1000)] {
        assert_eq!(of_path(path), None, "{path}");
    }
}
