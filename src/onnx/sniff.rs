//! Says what a file is when it is no ONNX model. None of these can begin one: a `ModelProto` begins with the tag of
//! one of its own fields, in practice `08`, the IR version.

pub(super) fn sniff(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let magics: &[(usize, &[u8], &str)] = &[
        (0, b"PK\x03\x04", "it is a zip archive (a PyTorch .pt, a NumPy .npz or a packed model?)"),
        (0, b"\x1f\x8b", "it is gzip-compressed: unpack it first"),
        (0, b"\x28\xb5\x2f\xfd", "it is zstd-compressed: unpack it first"),
        (0, b"BZh", "it is bzip2-compressed: unpack it first"),
        (0, b"\xfd7zXZ", "it is xz-compressed: unpack it first"),
        (0, b"\x89HDF\r\n\x1a\n", "it is an HDF5 file (a Keras model?)"),
        (0, b"GGUF", "it is a GGUF file"),
        (0, b"\x93NUMPY", "it is a NumPy array"),
        (0, b"\x7fELF", "it is a program"),
        (0, b"%PDF", "it is a PDF document"),
        (0, b"\x89PNG", "it is a picture"),
        (0, b"version https://git-lfs", "it is a Git LFS pointer, not the file that it points to"),
        (4, b"TFL3", "it is a TensorFlow Lite model"),
        (4, b"ORTM", "it is an ORT-format model: deploy the .onnx that it was made of"),
        (257, b"ustar", "it is a tar archive"),
    ];
    if let Some((.., what)) = magics.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return Some(what);
    }
    if let [0x80, 2..=5, ..] = head {
        return Some("it is a Python pickle (a PyTorch or scikit-learn model?)");
    }
    // Eight bytes of header length, then the header's JSON.
    if let Some((length, rest)) = head.split_first_chunk::<8>()
        && rest.starts_with(b"{\"")
        && u64::from_le_bytes(*length) < 100_000_000
    {
        return Some("it is a safetensors file");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match text {
        [] if !head.is_empty() => return Some("it holds only blanks"),
        [b'<', ..] => return Some("it is HTML or XML (a login or error page?)"),
        [b'{' | b'[', ..] if is_text(text) => return Some("it is JSON"),
        _ => {}
    }
    (head.len() >= 16 && is_text(head)).then_some("it is text")
}

fn is_text(head: &[u8]) -> bool {
    head.iter().take(64).all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e))
}
