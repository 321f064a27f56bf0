//! A multilabel task is a binary task a label.

use super::*;

/// The pipeline with these tasks instead of its own.
fn with(base: &str, tasks: &str) -> String {
    let start = base.find("[[task]]").unwrap();
    let end = base[start..].find("[model]").map_or(base.len(), |end| start + end);
    format!("{}{tasks}\n{}", &base[..start], &base[end..])
}

/// Both ways of writing it are read alike, and what is written out as well.
#[track_caller]
fn check(base: &str, label: &str, each: &[(&str, &str)]) {
    let together =
        parse(&with(base, &format!("[[task]]\nname = \"found\"\nkind = \"multilabel\"\nlabel = {{ {label} }}\nlabelled = 0.5")), &[])
            .unwrap();
    let task =
        |(of, label): &(&str, &str)| format!("[[task]]\nname = \"found-{of}\"\nkind = \"binary\"\nlabel = {{ {label} }}\nlabelled = 0.5\n");
    let apart = parse(&with(base, &each.iter().map(task).collect::<String>()), &[]).unwrap();
    assert_eq!(together.tasks, apart.tasks, "{label}");
    assert_eq!(parse(&together.resolved_toml(&[]).unwrap(), &[]).unwrap(), together, "{label}");
}

#[test]
fn a_multilabel_task_is_a_binary_task_a_label() {
    check(
        LUNG,
        "report = \"s|r\", conclusions = [\"s|1\", \"s|2\"], names = [\"effusion\", \"nodule\"], within = \"2d\"",
        &[
            ("effusion", "report = \"s|r\", conclusion = \"s|1\", within = \"2d\""),
            ("nodule", "report = \"s|r\", conclusion = \"s|2\", within = \"2d\""),
        ],
    );
    check(
        LUNG,
        "conditions = [\"s|1\", \"s|2\"], names = [\"a\", \"b\"], within = \"1y\"",
        &[("a", "condition = \"s|1\", within = \"1y\""), ("b", "condition = \"s|2\", within = \"1y\"")],
    );
    check(
        OASIS,
        "columns = [\"CDR\", \"Educ\"], above = 0",
        &[("CDR", "column = \"CDR\", above = 0"), ("Educ", "column = \"Educ\", above = 0")],
    );
}

#[track_caller]
fn refused(base: &str, label: &str, says: &str) {
    let text = with(base, &format!("[[task]]\nname = \"found\"\nkind = \"multilabel\"\nlabel = {{ {label} }}"));
    let said = parse(&text, &[]).unwrap_err().to_string();
    assert!(said.lines().count() == 1 && said.contains(says), "{label}: {said}");
}

#[test]
fn what_is_no_list_of_labels_is_refused() {
    refused(LUNG, "within = \"2d\"", "one of conditions, conclusions and columns; found none");
    refused(LUNG, "conditions = [\"s|1\"], conclusions = [\"s|2\"], within = \"2d\"", "found conditions and conclusions");
    refused(LUNG, "columns = [\"CDR\"], above = 0", "are for format = \"csv\"");
    refused(OASIS, "conditions = [\"s|1\"], within = \"2d\"", "labels are columns");
    refused(LUNG, "conditions = [\"s|1\", \"s|2\"], within = \"2d\"", "give `names` of letters");
    refused(LUNG, "conditions = [\"s|1\", \"s|2\"], names = [\"a\"], within = \"2d\"", "`names` has 1 texts for 2 labels");
    refused(LUNG, "conditions = [\"1\"], names = [\"a\"], within = \"2d\"", "write system|code");
    refused(LUNG, "conditions = [\"s|1\"], names = [\"a\"]", "has no `within`");
    refused(LUNG, "conditions = [\"s|1\"], names = [\"a\"], within = \"2d\", above = 0", "`above` does not go with `conditions`");
    refused(LUNG, "conclusions = [\"s|1\"], names = [\"a\"], within = \"2d\"", "has no `report`");
    refused(OASIS, "columns = [\"CDR\"]", "one of above and equals");
    refused(OASIS, "columns = [\"Nothing\"], above = 0", "Nothing");
}

#[test]
fn a_label_that_is_a_task_already_is_told_by_its_name() {
    let label = "{ conditions = [\"s|1\"], names = [\"a\"], within = \"2d\" }";
    let both = format!(
        "[[task]]\nname = \"found-a\"\nkind = \"binary\"\nlabel = {{ condition = \"s|1\", within = \"2d\" }}\n\n\
         [[task]]\nname = \"found\"\nkind = \"multilabel\"\nlabel = {label}"
    );
    let said = parse(&with(LUNG, &both), &[]).unwrap_err().to_string();
    assert!(said.lines().count() == 1 && said.contains("a label makes a task `found-a`, which there is already"), "{said}");
}
