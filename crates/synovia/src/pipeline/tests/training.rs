//! Settings of training that do not go together.

use expect_test::{Expect, expect};

use super::*;

#[test]
fn what_does_not_go_together_is_said() {
    #[track_caller]
    fn set(overrides: &[&str], expect: &Expect) {
        check(LUNG, overrides, expect);
    }
    set(
        &["training.start=alone", "training.singles=false"],
        &expect![[
            r#"--set training.singles: `singles` is false, and start = "alone" begins with the models of one modality; leave one of the two out"#
        ]],
    );
    set(
        &["training.sampling=balanced", "training.imbalance=weights"],
        &expect![[
            r#"--set training.imbalance: `imbalance` and sampling = "balanced" do the same thing twice to the first task; keep one of the two"#
        ]],
    );
    set(
        &["training.accumulate=2", "training.imbalance=weights", "training.privacy={ noise = 1 }", "model.norm=group"],
        &expect![[r#"
        --set training.accumulate: `accumulate` is about batches, and a private step takes in each patient alone already; leave it out
        --set training.imbalance: `imbalance` is "weights", and a private training clips each patient to the same; set it to "logits""#]],
    );
    set(
        &["training.epochs=4", "training.warmup_epochs=3", "training.swa=0.5"],
        &expect!["--set training.swa: `swa` is 0.5: the last 2 of 4 epochs, and the learning rate rises for 3"],
    );
    set(
        &["training.branches={ shared = 0.5 }"],
        &expect![[
            r#"p.toml:25: `shared` in training.branches holds together what the modalities say in common terms, and this fusion has none; set model.fusion = "shared-private""#
        ]],
    );
    set(
        &["training.imbalance=some"],
        &expect![[r#"--set training.imbalance: `imbalance` in [training] is "some"; allowed: none, weights, focal, logits"#]],
    );
}

#[test]
fn what_goes_together_is_taken() {
    let overrides = ["training.sampling=balanced", "training.imbalance=focal", "training.accumulate=2", "training.swa=0.25"];
    let pipeline = parse(LUNG, &[&overrides[..], &["model.fusion=shared-private", "training.branches={ shared = 0.5 }"]].concat()).unwrap();
    assert_eq!((pipeline.training.accumulate, pipeline.training.swa), (2, 0.25));
    assert_eq!(pipeline.training.imbalance, synovia_training::Imbalance::Focal);
    assert_eq!(pipeline.training.branches.shared, 0.5);
}
