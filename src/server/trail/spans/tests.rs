use super::*;

#[test]
fn status_codes_are_written_as_grpc_writes_them() {
    assert_eq!(code_name(0), "OK");
    assert_eq!(code_name(1), "CANCELLED");
    assert_eq!(code_name(4), "DEADLINE_EXCEEDED");
    assert_eq!(code_name(99), "UNKNOWN");
}
