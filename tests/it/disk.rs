//! A disk that is full, at every stage: an error that names the file, and nothing half-written taken for whole.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::synovia::{run, simulate, skipped, small, succeed};

/// A file system of so many MiB that is gone at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(at: &Path, mebibytes: usize) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        output.status.success().then(|| Self(at.to_owned()))
    }

    fn resize(&self, kibibytes: usize) {
        let size = format!("remount,size={kibibytes}k");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_each_stage_with_the_file_and_the_next_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 1) else {
        skipped("this user may not mount a file system");
        return;
    };
    let full = |arguments: &str| {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "synovia {arguments}\n{said}");
        assert!(said.contains("No space left") && said.contains("disk/"), "{said}");
    };
    let out = disk.0.join("cohort");
    full(&format!("simulate --quiet --out {} --patients 200 --seed 3", out.display()));
    assert_eq!(std::fs::read_dir(&disk.0).unwrap().count(), 0, "nothing half-written is left");

    let data = simulate(dir.path(), 120, "");
    let to = disk.0.join("run");
    let mut failed = 0;
    for kibibytes in [512, 1024, 2048, 3072, 4096, 6144, 8192] {
        disk.resize(kibibytes);
        let output = run(&format!("run {}", small(&data, &to)));
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("No space left") && said.contains("disk/"), "{said}");
            failed += 1;
        }
    }
    assert!(failed >= 2, "the disk was full {failed} times");
    disk.resize(64 << 10);
    succeed(&format!("run {}", small(&data, &to)));
    assert!(to.join("model.onnx").is_file() && to.join("report.html").is_file());
}
