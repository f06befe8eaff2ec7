use std::fs::{File, FileTimes};
use std::time::Duration;

use tempfile::TempDir;

use super::*;

fn place(root: &TempDir, digest: &str) -> CachePlace {
    CachePlace { root: root.path().into(), digest: digest.into() }
}

/// A folder with an engine of `size` bytes, last loaded `age` seconds ago.
fn filled(root: &TempDir, digest: &str, size: usize, age: u64) -> PathBuf {
    let folder = place(root, digest).folder(&["TensorRT"]).unwrap();
    fs::write(folder.join("x.engine"), vec![0; size]).unwrap();
    let used = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(age));
    File::options().write(true).open(folder.join("used")).unwrap().set_times(used).unwrap();
    folder
}

#[test]
fn another_model_or_setting_has_another_folder() {
    let root = TempDir::new().unwrap();
    let folder = |digest: &str, settings: &[&str]| place(&root, digest).folder(settings).unwrap();
    let ours = folder("sha256:aa", &["TensorRT", "fp16=1"]);
    assert_eq!(ours, folder("sha256:aa", &["TensorRT", "fp16=1"]));
    assert_ne!(ours, folder("sha256:bb", &["TensorRT", "fp16=1"]));
    assert_ne!(ours, folder("sha256:aa", &["TensorRT", "fp16=0"]));
    assert_ne!(ours, folder("sha256:aa", &["TensorRTfp16=1"]));
}

#[test]
fn the_least_recently_loaded_goes_first_and_the_one_in_use_stays() {
    let root = TempDir::new().unwrap();
    let old = filled(&root, "old", 60, 300);
    let newer = filled(&root, "newer", 60, 200);
    let ours = filled(&root, "ours", 90, 400);
    fs::create_dir(root.path().join("foreign")).unwrap();
    assert_eq!(place(&root, "ours").folder_within(&["TensorRT"], 160).unwrap(), ours);
    assert!(!old.exists() && newer.exists() && ours.join("x.engine").exists());
    place(&root, "ours").folder_within(&["TensorRT"], 10).unwrap();
    assert!(!newer.exists() && ours.join("x.engine").exists() && root.path().join("foreign").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let place = CachePlace { root: root.path().join("file"), digest: "d".into() };
    assert!(place.folder(&[]).is_err());
}
