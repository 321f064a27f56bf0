//! Federations through the binary: the same bits however they are run, the same as central training for one site, and through a
//! real Flower.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::synovia::{command, root, run, simulate, skipped, small, succeed};

/// Arguments of a simulated federation.
fn federation(data: &Path, run: &Path, more: &str) -> String {
    format!("federate simulate {} {more}", small(data, run))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// The one folder in `dir`.
fn only(dir: &Path) -> PathBuf {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

/// The hash after each round.
fn hashes(run: &Path) -> Vec<String> {
    let rounds = json(&only(&run.join("federation/together")).join("rounds.json"));
    rounds.as_array().unwrap().iter().map(|round| round["hash"].as_str().unwrap().to_owned()).collect()
}

/// The numbers of a safetensors file, which lie in the order of their names behind a header and its length.
fn numbers(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn the_same_bits_for_any_threads_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 200, "--missing-image 0.1 --missing-record 0.1");
    let more = "--sites 3 --partition even --rounds 3 --method fedprox:0.01";
    let (one, two, killed) = (dir.path().join("one"), dir.path().join("two"), dir.path().join("killed"));
    let table = succeed(&federation(&data, &one, &format!("{more} --threads 1")));
    assert_eq!(table.lines().filter(|line| line.starts_with("site-") || line.starts_with("all sites")).count(), 8, "{table}");
    let report = json(&one.join("federation/report.json"));
    let sites = report["sites"].as_array().unwrap();
    assert_eq!((sites.len(), report["rounds"].as_u64(), report["method"].as_str()), (3, Some(3), Some("fedprox:0.01")));
    let n_train: u64 = sites.iter().map(|site| site["n_train"].as_u64().unwrap()).sum();
    assert!((110..=200).contains(&n_train), "70 % of the studies of 200 patients, of whom some have two: {n_train}");
    for gain in sites.iter().map(|site| &site["tasks"]["malignant"]).chain([&report["pooled"]["malignant"]]) {
        let number = |key: &str| gain[key].as_f64().unwrap_or_else(|| panic!("{key} of {gain}"));
        assert!((number("together") - number("alone") - number("gain")).abs() < 1e-12);
        assert!(number("low") <= number("gain") && number("gain") <= number("high"), "{gain}");
    }
    // Each round all weights go to each site and come back from it.
    let files = only(&one.join("federation/together"));
    let weights = std::fs::metadata(files.join("round-00003.safetensors")).unwrap().len();
    let bytes = report["bytes"].as_u64().unwrap();
    assert!((3 * 6 * weights / 2..3 * 6 * weights * 5 / 4).contains(&bytes), "{bytes} bytes, and {weights} of weights");

    succeed(&federation(&data, &two, &format!("{more} --threads 2")));
    assert_eq!(hashes(&one), hashes(&two), "for any number of threads");

    let arguments = federation(&data, &killed, more);
    let mut child = command().args(arguments.split_whitespace()).current_dir(root()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let together = killed.join("federation/together");
    let first_round = || {
        let folders = std::fs::read_dir(&together).ok()?;
        folders.flatten().find(|folder| folder.path().join("rounds.json").exists())
    };
    let until = Instant::now() + Duration::from_mins(5);
    while first_round().is_none() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until, "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let said = String::from_utf8(run(&federation(&data, &killed, more).replace("--quiet", "")).stderr).unwrap();
    assert!(said.contains("federate: goes on after round "), "{said}");
    assert_eq!(hashes(&one), hashes(&killed), "after a kill");
}

#[test]
fn one_site_is_central_training() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 150, "--missing-image 0.1 --missing-record 0.1");
    let to = dir.path().join("run");
    succeed(&format!("train {}", small(&data, &to)));
    succeed(&federation(&data, &to, "--sites 1 --rounds 3"));
    let federated = only(&to.join("federation/sites/site-1/federation"));
    assert!(numbers(&to.join("model/joint.safetensors")) == numbers(&federated.join("best.safetensors")), "bit for bit");
    let history = std::fs::read_to_string(to.join("history.jsonl")).unwrap();
    let lines = history.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = lines.filter(|line| line["variant"] == "joint").map(|line| line["validation_loss"].as_f64().unwrap()).collect();
    let report = json(&to.join("federation/report.json"));
    let federated: Vec<f64> = report["validation_losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert_eq!(losses, federated);
}

#[test]
fn unequal_sites_learn_together() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 200, "");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 3 --partition modality --rounds 2 --keep norms --central"));
    let report = json(&to.join("federation/report.json"));
    let has: Vec<(bool, bool)> =
        report["sites"].as_array().unwrap().iter().map(|site| (site["image"] == true, site["record"] == true)).collect();
    assert_eq!(has, [(true, false), (false, true), (true, true)]);
    assert!(report["central"]["malignant"]["alone"].is_number(), "{}", report["central"]);
    let output = run(&federation(&data, &to, "--sites 150 --rounds 2"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("even leaves a site without"), "{said}");
}

#[test]
fn a_round_by_hand_and_what_goes_wrong_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 150, "");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 2 --rounds 2"));
    let sites = to.join("federation/sites");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let stated = |k: usize| sites.join(format!("site-{k}/statement.json")).display().to_string();
    let agreed = succeed(&format!("federate agree {} {} --rounds 2 --out {}", stated(2), stated(1), at("f")));
    let agreed: serde_json::Value = serde_json::from_str(&agreed).unwrap();
    assert_eq!(agreed["sites"], serde_json::json!(["site-1", "site-2"]));
    let (plan, first) = (at("f/plan.json"), at("f/weights.safetensors"));
    let fit = |k: usize, weights: &str, out: &str| {
        let run = sites.join(format!("site-{k}"));
        format!("federate fit --quiet --run {} --site site-{k} --plan {plan} --weights {weights} --out {}", run.display(), at(out))
    };
    succeed(&fit(1, &first, "a1"));
    succeed(&fit(2, &first, "b1"));
    let merge = |weights: &str, out: &str, updates: &[&str]| {
        let updates: Vec<String> = updates.iter().map(|name| at(name)).collect();
        run(&format!("federate aggregate --plan {plan} --weights {weights} --out {} {}", at(out), updates.join(" ")))
    };
    let report = |output: &std::process::Output| serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let forth = merge(&first, "one", &["a1", "b1"]);
    let back = merge(&first, "other", &["b1", "a1"]);
    assert!(forth.status.success() && back.status.success());
    assert_eq!(std::fs::read(at("one")).unwrap(), std::fs::read(at("other")).unwrap(), "in either order");
    assert_eq!(report(&forth)["hash"].as_str().unwrap(), hashes(&to)[0], "the simulation's own round");

    // The second round, with an update of the first, and the same one twice.
    let one = at("one");
    succeed(&fit(1, &one, "a2"));
    let late = merge(&one, "two", &["a2", "b1", "a2"]);
    assert!(late.status.success());
    let said = report(&late);
    assert_eq!(said["absent"], serde_json::json!(["site-2"]));
    let reasons: Vec<&str> = said["refused"].as_array().unwrap().iter().map(|r| r["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"site `site-2` sent an update of round 1 in round 2"), "{reasons:?}");
    assert!(reasons.contains(&"site `site-1` sent this update twice; it counts once"), "{reasons:?}");
    // A round that was lost on the way is done again, to the same bits.
    let before = std::fs::read(at("a2")).unwrap();
    succeed(&fit(1, &one, "a2"));
    assert_eq!(before, std::fs::read(at("a2")).unwrap());
    // Nothing usable: clear words, no file.
    let nothing = merge(&one, "nothing", &["b1"]);
    let words = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(nothing.status.code() == Some(1) && words.contains("round 2 has 0 usable updates where 1 are needed"), "{words}");
    assert!(!Path::new(&at("nothing")).exists());
    // Who is no site of the plan, and weights of another one.
    let run_folder = sites.join("site-1");
    for (arguments, expected) in [
        (format!("--site north --plan {plan} --weights {one}"), "site `north` takes no part in this federation"),
        (format!("--site site-1 --plan {plan} --weights {}", at("a1")), "the shared weights can't be read: unknown field `site`"),
    ] {
        let output = run(&format!("federate evaluate --run {} {arguments}", run_folder.display()));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && words.contains(expected), "{words}");
    }
    let measured = succeed(&format!("federate evaluate --run {} --site site-1 --plan {plan} --weights {one}", run_folder.display()));
    let measured: serde_json::Value = serde_json::from_str(&measured).unwrap();
    assert_eq!((measured["round"].as_u64(), measured["site"].as_str()), (Some(1), Some("site-1")));
    assert!(measured["test"]["malignant"]["n"].as_u64().unwrap() > 5 && measured["validation_loss"].is_number(), "{measured}");
    // What the Flower app takes the number of labels from: texts, the number first.
    let of_tasks: Vec<Vec<f64>> = measured["validation"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of_task| of_task.as_array().unwrap().iter().map(|text| text.as_str().unwrap().parse().unwrap()).collect())
        .collect();
    assert!(!of_tasks.is_empty() && of_tasks.iter().all(|sums| sums.len() > 2 && sums[0] >= 1.0 && sums[0].fract() == 0.0), "{measured}");
}

#[test]
fn a_round_is_trained_privately_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 150, "");
    let to = dir.path().join("run");
    let private = "--set training.privacy.noise=5 --set model.norm=group --set model.image=none --set training.ema=0";
    succeed(&federation(&data, &to, &format!("--sites 2 --rounds 1 {private}")));
    let rounds = json(&only(&to.join("federation/together")).join("rounds.json"));
    let epsilon = rounds[0]["sites"][0]["epsilon"].as_f64().unwrap();
    assert!(epsilon > 0.0 && epsilon < 5.0 && rounds[0]["sites"][0]["losses"] == serde_json::json!([]), "{rounds}");
    let page = std::fs::read_to_string(to.join("federation/report.html")).unwrap();
    assert!(page.contains("ε spent") && page.contains("Each site"));
    let site = to.join("federation/sites/site-1");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let stated = [1, 2].map(|k| to.join(format!("federation/sites/site-{k}/statement.json")).display().to_string()).join(" ");
    succeed(&format!("federate agree {stated} --rounds 1 --out {}", at("f")));
    let fit = |weights: &str, out: &str| {
        let (plan, weights, out) = (at("f/plan.json"), at(weights), at(out));
        run(&format!("federate fit --quiet --run {} --site site-1 --plan {plan} --weights {weights} --out {out}", site.display()))
    };
    assert!(fit("f/weights.safetensors", "a").status.success() && fit("f/weights.safetensors", "b").status.success());
    assert_eq!(std::fs::read(at("a")).unwrap(), std::fs::read(at("b")).unwrap(), "the same noise again");
    let mut other = std::fs::read(at("f/weights.safetensors")).unwrap();
    let last = other.len() - 4;
    other[last] ^= 1;
    std::fs::write(at("other"), other).unwrap();
    let refused = fit("other", "c");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("was trained privately already"), "{said}");
}

#[test]
fn privacy_is_accounted_for() {
    let said = succeed("federate account --sampling 0.01 --noise 1 --steps 1000 --delta 1e-5");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    // opacus and dp-accounting agree on it.
    assert!((said["epsilon"].as_f64().unwrap() - 2.101366).abs() < 1e-4, "{said}");
    assert_eq!(run("federate account --sampling 2 --noise 1 --steps 1 --delta 1e-5").status.code(), Some(2));
}

/// Flower's Python, and a folder to work in.
fn with_flower() -> Option<(PathBuf, tempfile::TempDir)> {
    let python = root().join(".flower/venv/bin/python");
    if !python.is_file() {
        skipped("no Flower in .flower/venv; run `just flower` first");
        return None;
    }
    Some((python, tempfile::tempdir().unwrap()))
}

/// A real SuperLink and real SuperNodes: made by `just flower`, in an environment of their own.
#[test]
fn through_flower_it_is_the_simulation() {
    let Some((python, dir)) = with_flower() else { return };
    let data = simulate(dir.path(), 200, "--missing-image 0.1 --missing-record 0.1");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 3 --rounds 2"));
    let out = dir.path().join("flower");
    flower(&python, &to.join("federation/sites"), &out, 2, &[]);
    same_weights(&to, &out, 1..=2, 1e-6);
}

/// Weights after these rounds are those of the simulation (which keeps the last two), and each round up to them has a loss.
fn same_weights(run: &Path, out: &Path, rounds: RangeInclusive<usize>, within: f32) {
    let simulated = only(&run.join("federation/together"));
    let losses = json(&out.join("result.json"))["validation_losses"].clone();
    for round in rounds {
        let name = format!("round-{round:05}.safetensors");
        let (ours, theirs) = (numbers(&simulated.join(&name)), numbers(&out.join(&name)));
        assert_eq!(ours.len(), theirs.len());
        let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= within, "round {round}: {far}");
        assert!((1..=round).all(|round| losses[round.to_string()].is_number()), "{losses}");
    }
}

/// Under masks the coordinator sees sums alone; sites can ask for it.
#[test]
fn flower_s_secure_aggregation_gives_the_same_mean() {
    let Some((python, dir)) = with_flower() else { return };
    // One has images alone, one records alone, one both: a number is trained by two of them or by all.
    let data = simulate(dir.path(), 300, "");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 3 --rounds 1 --partition modality"));
    let (sites, out) = (to.join("federation/sites"), dir.path().join("flower"));
    flower(&python, &sites, &out, 1, &["--sealed", "--set", "secure=true"]);
    // A step of masks is 1e-6 of the examples' share, and the optimizer's first steps know little but signs.
    same_weights(&to, &out, 1..=1, 1e-5);
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(rounds.lines().next().unwrap()).unwrap();
    let who = ["site-1", "site-2", "site-3"].map(|site| serde_json::json!({ "site": site }));
    assert_eq!(first, serde_json::json!({ "round": 1, "sites": who, "absent": [], "secure": true }), "and nothing else of a site");
    let plain = flower_ended(&python, &sites, &dir.path().join("plain"), 1, &["--sealed"]);
    assert!(plain.contains("no site answered") && !plain.contains("best round"), "{plain}");
}

/// However a site that gives its weights under masks alone is asked: Flower takes `train.default` for `train`, and puts no masks on it.
#[test]
fn a_sealed_site_answers_nothing_without_masks() {
    let Some((python, _)) = with_flower() else { return };
    let output = Command::new(python).arg("tests/it/unsealed.py").current_dir(root()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(said.lines().all(|line| line.contains("under masks only")), "{said}");
}

/// A SuperLink that is killed with the coordinator's app takes the run with it, which says so; the next run goes on.
#[test]
fn flower_goes_on_after_its_superlink_was_killed() {
    let Some((python, dir)) = with_flower() else { return };
    let data = simulate(dir.path(), 200, "--missing-image 0.1 --missing-record 0.1");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 3 --rounds 4"));
    let out = dir.path().join("flower");
    flower(&python, &to.join("federation/sites"), &out, 4, &["--kill-link"]);
    let before = std::fs::read_to_string(out.join("losses-before.jsonl")).unwrap().lines().count();
    assert!((2..4).contains(&before), "{before}");
    let log = std::fs::read_to_string(out.join("run.log")).unwrap();
    assert!(log.contains(&format!("going on after round {before}")), "{log}");
    same_weights(&to, &out, 3..=4, 1e-6);
}

/// What a run of the app says that does not come to its end.
fn flower_ended(python: &Path, sites: &Path, out: &Path, rounds: usize, more: &[&str]) -> String {
    let output = flower_command(python, sites, out, rounds, more).output().unwrap();
    assert!(!output.status.success());
    std::fs::read_to_string(out.join("run.log")).unwrap()
}

/// Runs the app on the simulation's sites; the coordinator's folder.
fn flower(python: &Path, sites: &Path, out: &Path, rounds: usize, more: &[&str]) -> PathBuf {
    let output = flower_command(python, sites, out, rounds, more).output().unwrap();
    let log = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_default();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), log("run.log"));
    out.to_owned()
}

fn flower_command(python: &Path, sites: &Path, out: &Path, rounds: usize, more: &[&str]) -> Command {
    let mut run = Command::new(python);
    run.args(["pipelines/federation/run_local.py", "--within", "900", "--tls", "--rounds", &rounds.to_string(), "--sites"]).arg(sites);
    run.arg("--out").arg(out).arg("--synovia").arg(command().get_program()).args(more).current_dir(root());
    run
}

/// A site that is killed in mid-round, and a node that nobody registered.
#[test]
fn flower_goes_on_without_the_dead_and_without_strangers() {
    let Some((python, dir)) = with_flower() else { return };
    let data = simulate(dir.path(), 200, "--missing-image 0.1 --missing-record 0.1");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 3 --rounds 1"));
    // A site that is back at once after it was taken for dead may be taken for one that is still busy with what it has lost.
    let more = ["--stranger", "--kill", "site-2", "--set", "timeout=90"];
    let out = flower(&python, &to.join("federation/sites"), &dir.path().join("flower"), 10, &more);
    let killed = json(&out.join("killed.json"));
    assert_eq!(killed["rounds_before"], 1, "{killed}");
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let rounds: Vec<serde_json::Value> = rounds.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rounds.len(), 10, "{rounds:?}");
    assert_eq!(rounds[1]["absent"], serde_json::json!(["site-2"]), "killed in the second round: {rounds:?}");
    assert_eq!(rounds[9]["absent"], serde_json::json!([]), "and there again in the last: {rounds:?}");
    // Who is not registered is not let in: three sites stated what they have, and the stranger was told why not.
    let stated = std::fs::read_dir(&out).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("statement-"));
    assert_eq!(stated.count(), 3);
    let said = std::fs::read_to_string(out.join("stranger.log")).unwrap();
    assert!(said.contains("Failed to activate SuperNode"), "{said}");
}

/// Flower's own strategy with its modifiers: without noise a round moves the model by no more than the clip.
#[test]
fn flower_s_privacy_around_its_own_strategy() {
    let Some((python, dir)) = with_flower() else { return };
    let data = simulate(dir.path(), 150, "");
    let to = dir.path().join("run");
    succeed(&federation(&data, &to, "--sites 2 --rounds 1 --set training.ema=0 --set model.norm=group --set model.image=none"));
    let sites = to.join("federation/sites");
    for dp in ["server", "client"] {
        let (out, dp) = (dir.path().join(dp), format!("dp=\"{dp}\""));
        flower(&python, &sites, &out, 1, &["--set", &dp, "--set", "clip=0.01", "--set", "noise=0.0", "--set", "strategy=\"FedAvg\""]);
        let [before, after] = [0, 1].map(|round| numbers(&out.join(format!("round-{round:05}.safetensors"))));
        assert_eq!(before.len(), after.len());
        let far = before.iter().zip(&after).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        assert!(far > 0.001 && far <= 0.01 * 1.001, "{dp}: {far}");
    }
}
