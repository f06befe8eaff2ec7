//! sha256 as users write it: `sha256:<64 hex>`. Of one file, its bytes; of several, what
//! `sha256sum FILES | LC_ALL=C sort | sha256sum` prints.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{LoadError, Result};

pub(super) fn hex(hash: Sha256) -> String {
    hex_of(&hash.finalize())
}

pub(super) fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 64 lower-case hex digits.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest of a model: its files as path and hex.
pub fn whole(files: &[(String, String)]) -> String {
    if let [(_, hex)] = files {
        return format!("sha256:{hex}");
    }
    let mut lines: Vec<String> = files.iter().map(|(path, hex)| format!("{hex}  {path}\n")).collect();
    lines.sort_unstable();
    format!("sha256:{}", hex(Sha256::new_with_prefix(lines.concat())))
}

/// Refuses a digest that no bytes can have.
pub(super) fn check(digest: &str) -> Result<()> {
    if digest.strip_prefix("sha256:").is_some_and(is_hex) {
        return Ok(());
    }
    Err(LoadError::Digest(format!("model.digest {digest:?} is not sha256: and 64 lower-case hex digits")))
}
