use super::*;

fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let cgroup = Cgroup::at(folder.path());
    (folder, cgroup)
}

#[test]
fn version_2_is_read() {
    let (_folder, cgroup) = cgroup(&[
        ("memory.max", "536870912\n"),
        ("memory.stat", "anon 1048576\nfile 99\n"),
        ("cpu.max", "150000 100000\n"),
    ]);
    assert_eq!((cgroup.memory_limit(), cgroup.memory_used()), (Some(512 << 20), Some(1 << 20)));
    assert_eq!(cgroup.cpu_quota(), Some(1.5));
}

#[test]
fn version_1_is_read() {
    let (_folder, cgroup) = cgroup(&[
        ("memory/memory.limit_in_bytes", "536870912\n"),
        ("memory/memory.stat", "cache 7\nrss 5\ntotal_rss 1048576\n"),
        ("cpu/cpu.cfs_quota_us", "50000\n"),
        ("cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    assert_eq!((cgroup.memory_limit(), cgroup.memory_used()), (Some(512 << 20), Some(1 << 20)));
    assert_eq!((cgroup.cpu_quota(), cgroup.cpus()), (Some(0.5), 1));
}

#[test]
fn no_limit_is_none() {
    for files in [
        &[("memory.max", "max\n"), ("cpu.max", "max 100000\n")][..],
        &[("memory/memory.limit_in_bytes", "9223372036854771712\n"), ("cpu/cpu.cfs_quota_us", "-1\n")],
        &[],
    ] {
        let (_folder, cgroup) = cgroup(files);
        assert_eq!((cgroup.memory_limit(), cgroup.cpu_quota()), (None, None));
        assert!(cgroup.cpus() >= 1);
    }
}
