//! Tasks whose answer is a number: what is read, what is written out, and what is refused.

use expect_test::expect;
use synovia_cohort::{EndpointKind, EventKind};
use synovia_records::{EndpointSpec, LabelSpec, Outcome};

use super::*;

/// The pipelines' first task replaced by another of this kind and label.
fn with(base: &str, kind: &str, label: &str) -> String {
    let start = base.find("[[task]]").unwrap();
    let end = base[start..].find("[model]").map_or(base.len(), |end| start + end);
    let task = format!("[[task]]\nname = \"outcome\"\nkind = \"{kind}\"\nlabel = {{ {label} }}\n");
    format!("{}{task}{}", &base[..start], &base[end..])
}

/// What is read of the only task; reading what is written out gives the same.
#[track_caller]
fn read(base: &str, kind: &str, label: &str) -> (EndpointKind, EndpointSpec) {
    let pipeline = parse(&with(base, kind, label), &[]).unwrap();
    let again = parse(&pipeline.resolved_toml(&[]).unwrap(), &[]).unwrap();
    assert_eq!(again, pipeline, "{label}");
    assert!(pipeline.tasks.classes.is_empty());
    let [endpoint] = &pipeline.tasks.endpoints[..] else { panic!("{label}") };
    (endpoint.kind, endpoint.spec())
}

#[test]
fn numbers_times_and_treatments() {
    let (kind, spec) = read(LUNG, "regression", "observation = \"s|hb\", unit = \"g/dL\", within = \"30d\"");
    assert_eq!(
        (kind, spec),
        (EndpointKind::Regression, EndpointSpec::Observation { code: "s|hb".to_owned(), within_days: 30.0, unit: "g/dL".to_owned() })
    );
    let (_, spec) = read(OASIS, "regression", "column = \"CDR\"");
    assert_eq!(spec, EndpointSpec::Column { name: "CDR".to_owned() });

    let (kind, spec) = read(LUNG, "survival", "encounter = \"s|IMP\", within = \"1y\"");
    assert!(matches!(&spec, EndpointSpec::Event { pattern, .. } if pattern.kind == EventKind::Encounter), "{spec:?}");
    assert_eq!(kind, EndpointKind::Survival);
    let (_, spec) = read(LUNG, "survival", "death = true, within = \"1y\"");
    assert!(matches!(&spec, EndpointSpec::Event { pattern, .. } if pattern.kind == EventKind::Death), "{spec:?}");
    let (_, spec) = read(OASIS, "survival", "column = \"Educ\", event = \"CDR\"");
    assert_eq!(spec, EndpointSpec::Columns { days: "Educ".to_owned(), event: "CDR".to_owned() });

    let arms = "treatment = [\"s|a\", \"s|b\"], started = \"30d\"";
    let (kind, spec) = read(LUNG, "treatment", &format!("condition = \"s|c\", within = \"90d\", {arms}"));
    assert_eq!(kind, EndpointKind::Treatment { binary: true, lower_is_better: false });
    let EndpointSpec::Treated { outcome, arms: read_arms, within_days } = spec else { panic!("{spec:?}") };
    assert_eq!(outcome, Outcome::Binary(LabelSpec::Condition { code: "s|c".to_owned(), within_days: 90.0 }));
    assert_eq!((read_arms, within_days), (["s|a".to_owned(), "s|b".to_owned()], 30.0));
    let (kind, _) = read(LUNG, "treatment", &format!("observation = \"s|hb\", unit = \"\", within = \"90d\", {arms}, better = \"lower\""));
    assert_eq!(kind, EndpointKind::Treatment { binary: false, lower_is_better: true });
    let (kind, _) = read(OASIS, "treatment", "column = \"CDR\", treatment = \"Educ\"");
    assert_eq!(kind, EndpointKind::Treatment { binary: false, lower_is_better: false });
    let (kind, _) = read(OASIS, "treatment", "column = \"CDR\", above = 0, treatment = \"Educ\"");
    assert_eq!(kind, EndpointKind::Treatment { binary: true, lower_is_better: false });
}

#[test]
fn columns_that_answers_are_read_from_are_no_features() {
    let pipeline = parse(&with(OASIS, "treatment", "column = \"CDR\", equals = \"1\", treatment = \"Educ\""), &[]).unwrap();
    let layout = pipeline.format_config().csv.unwrap();
    assert_eq!(layout.labels, ["CDR", "Educ"]);
    assert_eq!(layout.categories, ["CDR"], "an outcome that is compared as a text is read as one");
    assert!(pipeline.input_format_config().csv.unwrap().labels.is_empty());
    check(&with(OASIS, "treatment", "column = \"CDR\", treatment = \"Age\""), &[], &expect![[r#""#]]);
}

#[test]
fn what_is_wrong_with_an_endpoint() {
    let refused = |base: &str, kind: &str, label: &str, expect: &Expect| check(&with(base, kind, label), &[], expect);
    refused(LUNG, "regression", "within = \"30d\"", &expect![[r#""#]]);
    refused(LUNG, "regression", "column = \"y\"", &expect![[r#""#]]);
    refused(LUNG, "regression", "observation = \"s|hb\", within = \"30d\"", &expect![[r#""#]]);
    refused(OASIS, "survival", "column = \"CDR\", event = \"CDR\"", &expect![[r#""#]]);
    refused(OASIS, "treatment", "column = \"CDR\", treatment = \"CDR\", names = [\"a\"]", &expect![[r#""#]]);
    refused(OASIS, "regression", "observation = \"s|hb\", within = \"30d\"", &expect![[r#""#]]);
    refused(LUNG, "survival", "within = \"1y\"", &expect![[r#""#]]);
    refused(LUNG, "survival", "condition = \"s|c\", death = true, within = \"1y\"", &expect![[r#""#]]);
    refused(LUNG, "survival", "condition = \"s|c\", within = \"1y\", classes = [\"a\"]", &expect![[r#""#]]);
    refused(OASIS, "survival", "column = \"CDR\"", &expect![[r#""#]]);
    refused(LUNG, "treatment", "condition = \"s|c\", within = \"90d\"", &expect![[r#""#]]);
    refused(LUNG, "treatment", "condition = \"s|c\", within = \"90d\", treatment = \"s|a\", started = \"3d\"", &expect![[r#""#]]);
    refused(LUNG, "treatment", "condition = \"s|c\", within = \"90d\", treatment = [\"s|a\", \"s|a\"]", &expect![[r#""#]]);
    refused(OASIS, "treatment", "column = \"CDR\", treatment = \"Edc\", started = \"3d\"", &expect![[r#""#]]);
    // Two tasks that would write one column.
    let both = with(LUNG, "survival", "death = true, within = \"1y\"").replace(
        "[model]",
        "[[task]]\nname = \"outcome_event\"\nkind = \"binary\"\nlabel = { condition = \"s|c\", within = \"1d\" }\n[model]",
    );
    check(&both, &[], &expect![[r#""#]]);
}
