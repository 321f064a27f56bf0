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
    check(
        &with(OASIS, "treatment", "column = \"CDR\", treatment = \"Age\""),
        &[],
        &expect!["p.toml:16: `Age` is a feature too, so that the answer would be an input: remove it from `features`"],
    );
}

#[test]
fn what_is_wrong_with_an_endpoint() {
    let refused = |base: &str, kind: &str, label: &str, expect: &Expect| check(&with(base, kind, label), &[], expect);
    refused(
        LUNG,
        "regression",
        "within = \"30d\"",
        &expect![[r#"
        p.toml:17: label has no `observation`; say which number is predicted, such as observation = "http://loinc.org|4548-4"
        p.toml:17: label has no `unit`; say in which unit the number is wanted, by UCUM, such as unit = "g/dL", or "" for one without"#]],
    );
    refused(
        LUNG,
        "regression",
        "column = \"y\"",
        &expect![[r#"p.toml:17: `column` is for format = "csv"; of events it is an observation"#]],
    );
    refused(
        LUNG,
        "regression",
        "observation = \"s|hb\", within = \"30d\"",
        &expect![[
            r#"p.toml:17: label has no `unit`; say in which unit the number is wanted, by UCUM, such as unit = "g/dL", or "" for one without"#
        ]],
    );
    refused(
        OASIS,
        "survival",
        "column = \"CDR\", event = \"CDR\"",
        &expect!["p.toml:16: `event` is `CDR`, and so is `column`: name another"],
    );
    refused(
        OASIS,
        "treatment",
        "column = \"CDR\", treatment = \"CDR\", names = [\"a\"]",
        &expect![[r#"
        p.toml:16: `names` does not go with an outcome that is a number
        p.toml:16: `treatment` is `CDR`, and so is `column`: name another"#]],
    );
    refused(
        OASIS,
        "regression",
        "observation = \"s|hb\", within = \"30d\"",
        &expect![[r#"p.toml:16: of a table with a row a patient a label is a column: write column = "…""#]],
    );
    refused(
        LUNG,
        "survival",
        "within = \"1y\"",
        &expect![
            "p.toml:17: survival is the time to one of condition, observation, medication, procedure, encounter, report, imaging, allergy, family_history, death; found none"
        ],
    );
    refused(
        LUNG,
        "survival",
        "condition = \"s|c\", death = true, within = \"1y\"",
        &expect![
            "p.toml:17: survival is the time to one of condition, observation, medication, procedure, encounter, report, imaging, allergy, family_history, death; found condition and death"
        ],
    );
    refused(
        LUNG,
        "survival",
        "condition = \"s|c\", within = \"1y\", classes = [\"a\"]",
        &expect![
            "p.toml:17: unknown key `classes` in label; label has `condition`, `observation`, `medication`, `procedure`, `encounter`, `report`, `imaging`, `allergy`, `family_history`, `death`, `within`, `column`, `event`"
        ],
    );
    refused(
        OASIS,
        "survival",
        "column = \"CDR\"",
        &expect![
            "p.toml:16: label has no `event`; say which column is 1 where the days end with the event, and 0 where the patient was only last seen"
        ],
    );
    refused(
        LUNG,
        "treatment",
        "condition = \"s|c\", within = \"90d\"",
        &expect![[
            r#"p.toml:17: label has no `treatment`; name both, such as treatment = ["http://www.nlm.nih.gov/research/umls/rxnorm|18631", "http://www.nlm.nih.gov/research/umls/rxnorm|8640"]"#
        ]],
    );
    refused(
        LUNG,
        "treatment",
        "condition = \"s|c\", within = \"90d\", treatment = \"s|a\", started = \"3d\"",
        &expect![[r#"p.toml:17: `treatment` takes two: ["system|code", "system|code"]"#]],
    );
    refused(
        LUNG,
        "treatment",
        "condition = \"s|c\", within = \"90d\", treatment = [\"s|a\", \"s|a\"]",
        &expect![[r#"
        p.toml:17: label has no `started`; say within which time after the prediction a treatment begins, such as started = "30d"
        p.toml:17: `treatment` in label has "s|a" twice"#]],
    );
    refused(
        OASIS,
        "treatment",
        "column = \"CDR\", treatment = \"Edc\", started = \"3d\"",
        &expect![[r#"
        p.toml:16: `started` does not go with `column`
        p.toml:16: `treatment` in label: the table has no column `Edc`; did you mean `Educ`?"#]],
    );
    // Two tasks that would write one column.
    let both = with(LUNG, "survival", "death = true, within = \"1y\"").replace(
        "[model]",
        "[[task]]\nname = \"outcome_event\"\nkind = \"binary\"\nlabel = { condition = \"s|c\", within = \"1d\" }\n[model]",
    );
    check(
        &both,
        &[],
        &expect![[r#"p.toml:19: "outcome_event" and "outcome" would both make a column `outcome_event`; choose other names"#]],
    );
}
