//! Secrets that the kubelet mounts: folders whose files are exchanged together, by their link `..data`.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kubelet itself takes up to a minute.
const EVERY: Duration = Duration::from_secs(1);

/// The entries of a Secret; none where there is none.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with(".."))?;
            match std::fs::read(entry.path()) {
                Ok(content) => Some((name, content)),
                Err(error) => {
                    tracing::warn!(file = %entry.path().display(), %error, "a Secret's entry can't be read");
                    None
                }
            }
        })
        .collect()
}

/// Calls `read` now, and whenever the files were exchanged. Runs as long as the gateway.
pub async fn follow(folder: PathBuf, read: impl Fn(&Path)) {
    let link = folder.join("..data");
    // Before the files: an exchange in between is seen the next time.
    let mut seen = std::fs::read_link(&link).ok();
    read(&folder);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let now = std::fs::read_link(&link).ok();
        if now != seen {
            seen = now;
            read(&folder);
        }
    }
}
