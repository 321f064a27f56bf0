//! `[cohort]`: rules, index events, windows and splits.

use synovia_cohort::{Division, EventKind, Validating, Which};

use super::*;

/// A pipeline whose `[cohort]` is this.
#[track_caller]
fn cohort(base: &str, text: &str) -> Result<Pipeline, PipelineError> {
    let (start, rest) = base.split_once("[cohort]\n").unwrap();
    parse(&format!("{start}[cohort]\n{text}\n{}", &rest[rest.find("[[task]]").unwrap()..]), &[])
}

/// It is read, and read again from what is resolved.
#[track_caller]
fn right(base: &str, text: &str) -> Cohort {
    let pipeline = cohort(base, text).unwrap_or_else(|error| panic!("{error}"));
    let resolved = pipeline.resolved_toml(&[]).unwrap();
    match Pipeline::parse(&resolved, &[], None) {
        Ok(again) => assert_eq!(again, pipeline, "{resolved}"),
        Err(problems) => panic!("{problems:?}\n{resolved}"),
    }
    pipeline.cohort
}

#[track_caller]
fn wrong(base: &str, text: &str, expect: &Expect) {
    let error = cohort(base, text).err().map_or_else(|| "nothing wrong".to_owned(), |error| error.to_string());
    expect.assert_eq(&error.replace(&format!("{}/", data().display()), "D/"));
}

#[test]
fn rules_of_a_chart() {
    let cohort = right(
        LUNG,
        r#"gap = "7d"
        [[cohort.include]]
        name = "adults"
        age = { at_least = 18, below = 90 }
        [[cohort.include]]
        sex = "female"
        [[cohort.include]]
        has = "image"
        [[cohort.include]]
        history = "365d"
        [[cohort.include]]
        observation = "http://loinc.org|2160-0"
        value = { above = 1.5 }
        within = "30d"
        times = 2
        [[cohort.exclude]]
        condition = "http://hl7.org/fhir/sid/icd-10-cm|C34*"
        [[cohort.exclude]]
        observation = "http://loinc.org|72166-2"
        equals = "http://snomed.info/sct|77176002"
        [[cohort.competing]]
        death = true
        counts_as = "negative"
        [[cohort.competing]]
        procedure = "s|transplant""#,
    );
    let described: Vec<String> = cohort.include.iter().chain(&cohort.exclude).map(Rule::described).collect();
    assert_eq!(
        described,
        [
            "adults",
            "female",
            "with an image",
            "a record of at least 365d",
            "2 times observation http://loinc.org|2160-0 above 1.5 in the 30d before",
            "condition http://hl7.org/fhir/sid/icd-10-cm|C34*",
            "observation http://loinc.org|72166-2 http://snomed.info/sct|77176002",
        ]
    );
    assert_eq!(cohort.competing.iter().map(Competing::described).collect::<Vec<_>>(), ["death", "procedure s|transplant"]);
    assert_eq!(
        (cohort.gap.unwrap().days(), cohort.competing[0].counts_as, cohort.competing[1].counts_as),
        (7.0, Unheard::Negative, Unheard::Unknown)
    );
}

#[test]
fn index_events_and_prediction_times() {
    let of = |text: &str| {
        let cohort = right(LUNG, text);
        let index = cohort.index().map(|index| (index.event.kind, index.event.code, index.which));
        (index, cohort.prediction.days())
    };
    let any = || "any".to_owned();
    assert_eq!(of(""), (None, 0.0));
    assert_eq!(of("unit = \"encounter\""), (Some((EventKind::Encounter, any(), Which::Every)), 0.0));
    let emergency = "index = { encounter = \"v3|EMER\" }\nprediction = \"24h after index\"\nimage_within = \"30d\"";
    assert_eq!(of(emergency), (Some((EventKind::Encounter, "v3|EMER".to_owned(), Which::First)), 1.0));
    assert_eq!(
        of("index = { medication = \"any\", which = \"last\" }\nprediction = \"2w before\""),
        (Some((EventKind::Medication, any(), Which::Last)), -14.0)
    );
    assert_eq!(right(LUNG, emergency).index.unwrap().described(), "first encounter v3|EMER");
    wrong(
        LUNG,
        "unit = \"study\"\nindex = { encounter = \"any\" }",
        &expect![[r#"p.toml:12: `unit` and `index` both say what an example is: keep one of them"#]],
    );
    wrong(
        LUNG,
        "prediction = \"24h\"",
        &expect![[r#"p.toml:12: `prediction` in [cohort] is "24h"; write "at index", "24h after index" or "7d before index""#]],
    );
    wrong(
        LUNG,
        "image_within = \"30d\"",
        &expect![[r#"p.toml:12: `image_within` goes with `index`: of unit = "study" the image is the study's"#]],
    );
    wrong(
        LUNG,
        "index = { enconter = \"any\" }",
        &expect![[r#"
            p.toml:12: unknown key `enconter` in cohort.index; did you mean `encounter`?
            p.toml:12: cohort.index takes one of condition, observation, medication, procedure, encounter, report, imaging, allergy, family_history; found none"#]],
    );
}

#[test]
fn splits() {
    let division = |base: &str, text: &str| right(base, text).split.division(None, None);
    assert!(matches!(division(LUNG, ""), Division::Shares { stratified: false, .. }));
    assert!(matches!(division(LUNG, "split = { stratify = true }"), Division::Shares { stratified: true, .. }));
    assert!(matches!(
        right(LUNG, "folds = 3").split.division(Some(3), Some(1)),
        Division::Fold { folds: 3, fold: 1, stratified: true, .. }
    ));
    let by_time = division(LUNG, "split = { by = \"time\", test_from = 2019-07-01 }");
    let Division::Time { validation, test_from } = by_time else { panic!("{by_time:?}") };
    assert_eq!((validation, test_from.to_string().as_str()), (Validating::Share(0.125), "2019-07-01T00:00:00Z"));
    division(LUNG, "split = { by = \"time\", test_from = \"2019\", validation_from = \"2018-07\" }");
    let by_site =
        division(LUNG, "split = { by = \"site\", site = { identifier = \"SITE-\" }, test_sites = [\"SITE-N\"], validation = 0.2 }");
    assert_eq!(by_site, Division::Sites { validation: Validating::Share(0.2), test: vec!["SITE-N".to_owned()] });
    let household = right(LUNG, "split = { train = 0.7, validation = 0.1, test = 0.2, group = { observation = \"s|household\" } }");
    assert_eq!(household.split.group(), Some(&Named::Observation { observation: "s|household".to_owned() }));
    let table = right(OASIS, "split = { by = \"site\", site = { column = \"M/F\" }, test_sites = [\"F\"], validation_sites = [\"M\"] }");
    assert_eq!(table.columns().collect::<Vec<_>>(), ["M/F"]);
    wrong(
        LUNG,
        "split = { by = \"tiem\", train = 1.0 }",
        &expect![[r#"
        p.toml:12: `by` in cohort.split is "tiem"; allowed: patient, time, site; did you mean "time"?
        p.toml:12: cohort.split has no `validation`; write all shares; they sum to 1
        p.toml:12: cohort.split has no `test`; write all shares; they sum to 1"#]],
    );
    wrong(
        LUNG,
        "split = { by = \"time\", test_from = \"July\" }",
        &expect![[r#"p.toml:12: `test_from` in cohort.split is "July"; write a date such as "2019-07-01""#]],
    );
    wrong(
        LUNG,
        "split = { by = \"time\", test_from = \"2019\", validation_from = \"2020\", validation = 0.1 }",
        &expect![[r#"
        p.toml:12: `validation_from` must be before `test_from`
        p.toml:12: `validation` and `validation_from` both say who validates: keep one"#]],
    );
    wrong(
        LUNG,
        "split = { by = \"site\", sites = [\"a\"] }",
        &expect![[r#"
        p.toml:12: unknown key `sites` in cohort.split; did you mean `site`?
        p.toml:12: cohort.split has no `site`; say where a patient's site is written, such as site = { column = "Hospital" }
        p.toml:12: cohort.split has no `test_sites`; name the sites that are tested on, such as test_sites = ["North"]"#]],
    );
    wrong(
        LUNG,
        "folds = 3\nsplit = { by = \"time\", test_from = \"2019\" }",
        &expect![[r#"p.toml:13: `folds` tests on everybody once: remove it, or by = "time""#]],
    );
}

#[test]
fn what_is_wrong_with_a_rule_is_said_where() {
    wrong(
        LUNG,
        "[[cohort.include]]\nage = { atleast = 18 }",
        &expect!["p.toml:13: unknown key `atleast` in cohort.include.age; did you mean `at_least`?"],
    );
    wrong(
        LUNG,
        "[[cohort.include]]\nage = { at_least = 90, below = 18 }",
        &expect!["p.toml:13: `age` in cohort.include leaves no number; write such as { at_least = 18, below = 90 }"],
    );
    wrong(
        LUNG,
        "[[cohort.exclude]]\ncondition = \"C34\"",
        &expect![[r#"p.toml:13: `condition` in cohort.exclude is "C34"; write system|code, system|code* for all that begin so, or any"#]],
    );
    wrong(
        LUNG,
        "[[cohort.exclude]]\ncondition = \"s|c\"\nsex = \"male\"",
        &expect![
            "p.toml:12: cohort.exclude takes one of condition, observation, medication, procedure, encounter, report, imaging, allergy, family_history, age, sex, has, history, column; found condition and sex"
        ],
    );
    wrong(LUNG, "[[cohort.exclude]]\nsex = \"male\"\nwithin = \"30d\"", &expect!["p.toml:14: `within` does not go with `sex`"]);
    wrong(
        LUNG,
        "[[cohort.exclude]]\nconditon = \"s|c\"",
        &expect![[r#"
        p.toml:12: cohort.exclude takes one of condition, observation, medication, procedure, encounter, report, imaging, allergy, family_history, age, sex, has, history, column; found none
        p.toml:13: unknown key `conditon` in cohort.exclude; did you mean `condition`?"#]],
    );
    wrong(
        LUNG,
        "[cohort.include]\nsex = \"male\"",
        &expect!["p.toml:12: `include` must be a list: write [[cohort.include]], in two pairs of brackets"],
    );
    wrong(
        LUNG,
        "[[cohort.include]]\ncolumn = \"Age\"\nvalue = { above = 3 }",
        &expect![[
            r#"p.toml:12: `column` ("Age") is for format = "csv"; of a chart a rule asks for an event, and a group or site is an `identifier` or an `observation`"#
        ]],
    );
    wrong(
        LUNG,
        "[[cohort.competing]]\ndeath = true\ncounts_as = \"no\"",
        &expect![[r#"p.toml:14: `counts_as` in cohort.competing is "no"; allowed: unknown, negative"#]],
    );
    wrong(
        OASIS,
        "gap = \"7d\"\n[[cohort.include]]\nage = { above = 3 }",
        &expect![[r#"
        p.toml:12: `gap` needs times, which a table with a row a patient does not have: remove it
        p.toml:13: `include`: of a table a rule asks for a `column`, or has = "image""#]],
    );
    wrong(
        OASIS,
        "[[cohort.include]]\ncolumn = \"Agee\"\nvalue = { above = 3 }",
        &expect!["p.toml:12: `include` in [cohort]: the table has no column `Agee`; did you mean `Age`?"],
    );
    wrong(
        OASIS,
        "[[cohort.include]]\ncolumn = \"Age\"",
        &expect![[r#"p.toml:13: a column is compared: write value = { above = 0 } or equals = "x""#]],
    );
}
