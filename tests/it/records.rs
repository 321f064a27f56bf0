//! The ingest of records through the binary: a disk that is full, and memory that stays flat.

use std::process::Command;

use crate::synovia::{command, root, simulate, small, succeed};

/// Files may not grow beyond a limit, as on a full disk: a write fails, and the signal that would end the process is ignored.
#[test]
fn a_full_disk_is_an_error_and_nothing_half_written_is_taken_for_whole() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 150, "");
    let run = dir.path().join("run");
    let arguments = format!("ingest {}", small(&data, &run));
    let limited = format!("trap '' XFSZ; ulimit -f 64; exec {} {arguments}", command().get_program().display());
    let output = Command::new("bash").args(["-c", &limited]).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("records") && said.contains(".bin") && said.contains("too large"), "{said}");
    assert!(!run.join("ingest").exists());
    // With room it is done, and done whole.
    succeed(&arguments);
    assert!(run.join("ingest/records/records.json").is_file());
}

/// Peak resident memory of an ingest of records alone, KiB.
fn peak(patients: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), patients, "");
    let pipeline = format!(
        "name = \"records\"\n[records]\npath = \"{}/fhir\"\nformat = \"fhir\"\n[[task]]\nname = \"malignant\"\nkind = \"binary\"\n\
         label = {{ condition = \"http://snomed.info/sct|363358000\", within = \"180d\" }}\n",
        data.display()
    );
    std::fs::write(dir.path().join("records.toml"), pipeline).unwrap();
    // The kernel's own high-water mark, read as long as the process is there.
    let script = format!(
        "{} ingest {1}/records.toml --quiet --threads 2 --run {1}/run & p=$!; m=0; \
         while v=$(grep VmHWM /proc/$p/status 2>/dev/null); do m=$v; sleep 0.005; done; wait $p || exit 1; echo $m | tr -dc 0-9",
        command().get_program().display(),
        dir.path().display()
    );
    let out = Command::new("bash").args(["-c", &script]).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_patients() {
    // 45 MB more of input. What is free stays with the process for a while, the longer the busier the machine: a peak varies by some
    // 20 MB, and the least of three tells what is needed.
    let few = [(); 2].map(|()| peak(1000));
    let many = [(); 3].map(|()| peak(4000));
    let (most, least) = (few.iter().max().unwrap(), many.iter().min().unwrap());
    assert!(*most > 1024 && *least < most + 24 * 1024, "{few:?} KiB for 1000 patients, {many:?} KiB for 4000");
}
