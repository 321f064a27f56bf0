//! What is said of pipelines that are wrong.

use expect_test::expect;

use super::{LUNG, OASIS, check, lung, oasis, parse};

#[test]
fn not_toml() {
    lung("[images]", "[images", &expect!["p.toml:3: not TOML: unclosed table, expected `]`"]);
    lung("seed = 7", "seed = 7\nseed = 8", &expect!["p.toml:3: not TOML: duplicate key"]);
    lung("seed = 7", "seed = ", &expect!["p.toml:2: not TOML: string values must be quoted, expected literal string"]);
    check(
        "",
        &[],
        &expect![[r#"
        p.toml: the pipeline has no `name`; write one such as name = "lung"
        p.toml: the pipeline has no `records`; add [records], [images] or both
        p.toml: the pipeline has no `task`; add [[task]] with name, kind and label"#]],
    );
    check("\u{0}", &[], &expect!["p.toml:1: not TOML: key with no value, expected `=`"]);
}

#[test]
fn unknown_keys() {
    lung("fusion", "fussion", &expect!["p.toml:24: unknown key `fussion` in [model]; did you mean `fusion`?"]);
    lung("seed", "sead", &expect!["p.toml:2: unknown key `sead`; did you mean `seed`?"]);
    lung("[training]", "[trainig]", &expect!["p.toml:25: unknown key `trainig`; did you mean `training`?"]);
    lung(
        "size = 64",
        "sizes = 64\nbrightness = 3",
        &expect![[r#"
            p.toml:6: unknown key `sizes` in [images]; did you mean `size`?
            p.toml:7: unknown key `brightness` in [images]; [images] has `path`, `kind`, `size`, `window`, `views`, `laterality`, `burned_in`, `slices`, `spacing`, `slice_spacing`, `query`, `user_variable`, `password_variable`, `token_variable`"#]],
    );
    lung(
        "within = \"180d\"",
        "withn = \"180d\"",
        &expect![[r#"
        p.toml:17: unknown key `withn` in label; did you mean `within`?
        p.toml:17: label has no `within`; say how long after the prediction time it counts, such as within = "180d""#]],
    );
    lung(
        "device = \"cpu\"",
        "augmentation = { rotation = 3 }",
        &expect!["p.toml:27: unknown key `rotation` in training.augmentation; did you mean `rotate`?"],
    );
    lung(
        "test = 0.2",
        "tets = 0.2",
        &expect![[r#"
        p.toml:13: unknown key `tets` in cohort.split; did you mean `test`?
        p.toml:13: cohort.split has no `test`; write all shares; they sum to 1"#]],
    );
}

#[test]
fn wrong_kinds_of_value() {
    lung(
        "size = 64",
        "size = \"64\"",
        &expect![[r#"p.toml:6: `size` in [images] is "64", which is not a whole number; allowed: 16 to 1024"#]],
    );
    lung("size = 64", "size = 64.5", &expect!["p.toml:6: `size` in [images] is 64.5, which is not a whole number; allowed: 16 to 1024"]);
    lung("name = \"lung\"", "name = 7", &expect!["p.toml:1: `name` must be a text in quotes, not 7"]);
    lung("name = \"lung\"", "name = 2024-01-01", &expect!["p.toml:1: `name` must be a text in quotes, not 2024-01-01"]);
    lung(
        "epochs = 20",
        "epochs = [20]",
        &expect!["p.toml:26: `epochs` in [training] is a list, which is not a whole number; allowed: 1 to 10000"],
    );
    lung("epochs = 20", "learning_rate = \"fast\"", &expect![[r#"p.toml:26: `learning_rate` in [training] must be a number, not "fast""#]]);
    lung(
        "device = \"cpu\"",
        "augmentation = { flip = 1 }",
        &expect!["p.toml:27: `flip` in training.augmentation must be true or false, not 1"],
    );
    lung("device = \"cpu\"", "augmentation = true", &expect!["p.toml:27: `augmentation` in [training] must be a table, not true"]);
}

#[test]
fn out_of_range() {
    lung("size = 64", "size = 8", &expect!["p.toml:6: `size` in [images] is 8, which is out of range; allowed: 16 to 1024"]);
    lung("seed = 7", "seed = -1", &expect!["p.toml:2: `seed` is -1, which is out of range; allowed: 0 or more"]);
    lung(
        "seed = 7",
        "seed = 99999999999999999999",
        &expect!["p.toml:2: `seed` is 99999999999999999999, which is out of range; allowed: 0 or more"],
    );
    lung(
        "epochs = 20",
        "learning_rate = 0",
        &expect!["p.toml:26: `learning_rate` in [training] is 0, which is out of range; allowed: more than 0 and at most 1"],
    );
    lung(
        "epochs = 20",
        "learning_rate = nan",
        &expect!["p.toml:26: `learning_rate` in [training] is NaN, which is out of range; allowed: more than 0 and at most 1"],
    );
    lung(
        "epochs = 20",
        "clip = inf",
        &expect!["p.toml:26: `clip` in [training] is inf, which is out of range; allowed: more than 0 and at most 1000"],
    );
    lung(
        "epochs = 20",
        "epochs = 2\nwarmup_epochs = 2",
        &expect!["p.toml:27: `warmup_epochs` is 2 of 2 epochs; the learning rate must have some left to fall in"],
    );
    lung(
        "fusion = \"gated\"",
        "dropout = 1",
        &expect!["p.toml:24: `dropout` in [model] is 1, which is out of range; allowed: 0 or more and less than 1"],
    );
    lung(
        "365d",
        "365",
        &expect![[
            r#"p.toml:10: `history` in [records] is "365", which has no unit; write h, d, w, mo or y after the number, such as "365d""#
        ]],
    );
    lung(
        "180d",
        "half a year",
        &expect![[
            r#"p.toml:17: `within` in label is "half a year", which is not a length of time; write a whole number and h, d, w, mo or y, such as "365d", "12h", "6mo" or "2y""#
        ]],
    );
    lung("train = 0.7", "train = 0.8", &expect!["p.toml:13: the shares of cohort.split sum to 1.1; they must sum to 1"]);
    lung(
        "validation = 0.1, test = 0.2",
        "validation = 0.3",
        &expect!["p.toml:13: cohort.split has no `test`; write all shares; they sum to 1"],
    );
    lung(
        "validation = 0.1, test = 0.2",
        "validation = 0.3, test = 0",
        &expect!["p.toml:13: test is 0, so that nothing could be measured; give it a share such as 0.2, or use `folds`"],
    );
    lung(
        "unit = \"study\"",
        "folds = 5",
        &expect!["p.toml:13: with `folds` each fold is the test set once: remove `test`, and let train and validation sum to 1"],
    );
    oasis("folds = 5", "folds = 1", &expect!["p.toml:12: `folds` in [cohort] is 1, which is out of range; allowed: 2 to 50"]);
}

#[test]
fn one_task_in_single_brackets() {
    oasis("[[task]]", "[task]", &expect!["p.toml:13: `task` must be a list: write [[task]], in two pairs of brackets"]);
}

#[test]
fn words() {
    lung(
        "fusion = \"gated\"",
        "fusion = \"gate\"",
        &expect![[
            r#"p.toml:24: `fusion` in [model] is "gate"; allowed: gated, concat, late, late-weighted, film, low-rank, attention, experts, bottleneck, shared-private; did you mean "gated"?"#
        ]],
    );
    lung(
        "kind = \"dicom\"",
        "kind = \"dicoms\"",
        &expect![[r#"p.toml:5: `kind` in [images] is "dicoms"; allowed: dicom, nifti, picture; did you mean "dicom"?"#]],
    );
    lung(
        "format = \"fhir\"",
        "format = \"omap\"",
        &expect![[r#"p.toml:9: `format` in [records] is "omap"; allowed: fhir, meds, omop, csv; did you mean "omop"?"#]],
    );
    lung(
        "format = \"fhir\"",
        "format = \"meds\"\ncolumns = { patient = \"p\" }\nid = \"p\"",
        &expect![[r#"
            p.toml:10: `columns` in [records] is for format = "csv": remove it
            p.toml:11: `id` in [records] is for format = "csv": remove it"#]],
    );
    lung(
        "format = \"fhir\"",
        "format = \"csv\"\ncolumns = { patient = \"p\", tme = \"t\" }",
        &expect![[r#"
        p.toml:10: unknown key `tme` in records.columns; did you mean `time`?
        p.toml:10: records.columns has no `time`; name the column of the table
        p.toml:10: records.columns has no `code`; name the column of the table"#]],
    );
    lung("device = \"cpu\"", "device = \"cuda\"", &expect![[r#"p.toml:27: device = "cuda" is not in this build; devices that are: cpu"#]]);
    lung(
        "kind = \"binary\"",
        "kind = \"Binary\"",
        &expect![[
            r#"p.toml:16: `kind` in [[task]] is "Binary"; allowed: binary, multiclass, ordinal, multilabel, regression, survival, treatment; did you mean "binary"?"#
        ]],
    );
    lung(
        "unit = \"study\"",
        "unit = \"encountr\"",
        &expect![[r#"p.toml:12: `unit` in [cohort] is "encountr"; allowed: study, patient, encounter; did you mean "encounter"?"#]],
    );
}

#[test]
fn paths() {
    lung(
        "D/dicom",
        "D/dcm",
        &expect![[
            r#"p.toml:4: `path` in [images]: "D/dcm" cannot be read: No such file or directory (os error 2); give another path, or make it first"#
        ]],
    );
    lung(
        "D/dicom",
        "D/empty",
        &expect![[r#"p.toml:4: `path` in [images]: "D/empty" is an empty folder; put data there or give another path"#]],
    );
    lung(
        "D/dicom",
        "D/table.csv",
        &expect![[r#"p.toml:4: `path` in [images]: "D/table.csv" is neither a folder nor a DICOMDIR nor a zip archive; give one of them"#]],
    );
    lung(
        "D/dicom",
        "https://user:secret@pacs.example/dicom-web",
        &expect![[
            r#"p.toml:4: `path` in [images]: the address of the server: holds a login; name environment variables that hold it instead"#
        ]],
    );
    lung(
        "path = \"D/dicom\"\n",
        "path = \"https://pacs.example/dicom-web\"\nuser_variable = \"PACS_USER\"\n",
        &expect!["p.toml:5: a login is `user_variable` and `password_variable`, or `token_variable`; give both, or neither"],
    );
    lung(
        "path = \"D/dicom\"\n",
        "path = \"D/dicom\"\nquery = [\"ModalitiesInStudy=CT\"]\n",
        &expect!["p.toml:5: `query` in [images] is for a DICOMweb address; remove the line, or give one as `path`"],
    );
    lung(
        "D/fhir",
        "https://pacs.example/fhir",
        &expect![[r#"p.toml:8: `path` in [records] is an address; this version reads folders only"#]],
    );
    lung(
        "path = \"D/dicom\"\n",
        "",
        &expect![[r#"p.toml:3: [images] has no `path`; write path = "…", relative to the current directory"#]],
    );
    lung("D/dicom", " ", &expect!["p.toml:4: `path` in [images] is empty"]);
}

#[test]
fn tasks() {
    lung("name = \"stage\"", "name = \"malignant\"", &expect![[r#"p.toml:19: two tasks are named "malignant"; give each its own name"#]]);
    lung(
        "name = \"stage\"",
        "name = \"has_image\"",
        &expect![[r#"p.toml:19: `name` in [[task]] is "has_image", which names a column or a model's tensor already; choose another"#]],
    );
    lung(
        "name = \"stage\"",
        "name = \"1st stage\"",
        &expect![[
            r#"p.toml:19: `name` in [[task]] is "1st stage"; it names a column and a model's output, so write a letter, then letters, digits, `_` or `-`"#
        ]],
    );
    lung(
        "http://snomed.info/sct|363358000",
        "363358000",
        &expect![[r#"p.toml:17: `condition` is "363358000"; write system|code, such as "http://snomed.info/sct|363358000""#]],
    );
    lung(
        ", within = \"180d\"",
        "",
        &expect![[r#"p.toml:17: label has no `within`; say how long after the prediction time it counts, such as within = "180d""#]],
    );
    lung(
        "condition = \"http://snomed.info/sct|363358000\", within = \"180d\"",
        "above = 3",
        &expect!["p.toml:17: a label comes from one of condition, observation, report and column; found none"],
    );
    lung(
        "condition = \"http",
        "observation = \"a|b\", condition = \"http",
        &expect!["p.toml:17: a label comes from one of condition, observation, report and column; found condition and observation"],
    );
    lung(
        "kind = \"binary\"",
        "kind = \"multiclass\"",
        &expect![[r#"p.toml:17: a condition is there or not: write kind = "binary", or an observation with classes"#]],
    );
    lung(
        "kind = \"multiclass\"",
        "kind = \"binary\"",
        &expect![[r#"p.toml:21: `classes` has 3; a binary task takes two, the negative one first; more are kind = "multiclass""#]],
    );
    lung("\"s|2\"", "\"s|1\"", &expect![[r#"p.toml:21: `classes` in label has "s|1" twice"#]]);
    lung("\"s|2\"", "2", &expect!["p.toml:21: `classes` in label must hold texts in quotes, not 2"]);
    lung(
        "\"s|2\"",
        "\"two\"",
        &expect![[r#"p.toml:21: `classes` has "two"; write each answer as system|code, such as "http://snomed.info/sct|258215001""#]],
    );
    lung(
        "\"s|3\"]",
        "\"s|3\"], names = [\"I\"]",
        &expect!["p.toml:21: `names` has 1 texts for 3 classes; write a name for each, in the same order"],
    );
    lung(
        "condition = \"http://snomed.info/sct|363358000\", within = \"180d\"",
        "column = \"CDR\", above = 0",
        &expect![[r#"p.toml:17: `column` is for format = "csv"; of events a label is a condition, an observation or a report"#]],
    );
    let condition = "condition = \"http://snomed.info/sct|363358000\"";
    lung(
        condition,
        "report = \"s|xray\"",
        &expect![[
            r#"p.toml:17: label has no `conclusion`; say which is looked for, such as conclusion = "http://snomed.info/sct|60046008""#
        ]],
    );
    lung(
        condition,
        "report = \"s|xray\", conclusion = \"effusion\"",
        &expect![[r#"p.toml:17: `conclusion` is "effusion"; write system|code, such as "http://snomed.info/sct|363358000""#]],
    );
    lung(
        "363358000\"",
        "363358000\", conclusion = \"s|effusion\"",
        &expect!["p.toml:17: `conclusion` does not go with `condition`, which takes within"],
    );
    let no_task: String = OASIS.split("[[task]]").next().unwrap().to_owned();
    check(&no_task, &[], &expect!["p.toml: the pipeline has no `task`; add [[task]] with name, kind and label"]);
}

#[test]
fn what_stands_for_an_absent_modality() {
    let with = |absent: &str| LUNG.replace("fusion =", &format!("{absent}\nfusion ="));
    for absent in ["mask", "token", "reconstruct"] {
        let pipeline = parse(&with(&format!("absent = \"{absent}\"")), &[]).unwrap();
        assert_eq!(serde_json::to_value(pipeline.model.absent).unwrap(), absent);
    }
    check(
        &with("absent = \"tokn\""),
        &[],
        &expect![[r#"p.toml:24: `absent` in [model] is "tokn"; allowed: mask, token, reconstruct; did you mean "token"?"#]],
    );
    check(
        &with("absent = \"token\"\nmodality_dropout = 0"),
        &[],
        &expect![
            "p.toml:22: `absent` in [model]: nothing teaches what stands for a modality while none is hidden; set modality_dropout above 0"
        ],
    );
    check(
        &with("absent = \"token\"\nrecord = \"none\""),
        &[],
        &expect!["p.toml:22: `absent` in [model] is about one of two modalities, and there is one; leave it out"],
    );
}

#[test]
fn modalities() {
    let record_only = LUNG.replace("[images]\npath = \"D/dicom\"\nkind = \"dicom\"\nsize = 64\n", "");
    check(&record_only, &[], &expect![[r#"p.toml:19: `image` in [model] needs an [images] section; add one, or write image = "none""#]]);
    let pipeline = parse(&record_only.replace("image = \"resnet18\"\n", ""), &[]).unwrap();
    assert!(!pipeline.uses_images() && pipeline.uses_records());
    let pipeline = parse(&LUNG.replace("fusion =", "record = \"none\"\nfusion ="), &[]).unwrap();
    assert!(pipeline.uses_images() && !pipeline.uses_records());
    lung(
        "image = \"resnet18\"",
        "image = \"none\"\nrecord = \"none\"",
        &expect![[r#"p.toml:24: neither images nor records are an input; write record = "table", or image = "resnet18" with [images]"#]],
    );
    let (start, rest) = LUNG.split_once("[records]").unwrap();
    check(
        &format!("{start}{}", &rest[rest.find("[cohort]").unwrap()..]),
        &[],
        &expect![[
            r#"p.toml: the pipeline has no `records`; labels come from the records: add it, and record = "none" in [model] to train on images alone"#
        ]],
    );
}

#[test]
fn tables() {
    oasis(
        "id = \"ID\"",
        "id = \"ID\"\ncategories = [\"Educ\"]",
        &expect!["p.toml:9: `categories` has `Educ`, which is not among `features`: add it there or remove it here"],
    );
    oasis("\"Age\"", "\"age\"", &expect!["p.toml:10: `features` in [records]: the table has no column `age`; did you mean `Age`?"]);
    oasis(
        "\"Age\"",
        "\"SES\"",
        &expect!["p.toml:10: `features` in [records]: the table has no column `SES`; it has `ID`, `M/F`, `Age`, `Educ`, `CDR`"],
    );
    oasis(
        "\"Age\"",
        "\"CDR\"",
        &expect!["p.toml:16: `CDR` is a feature too, so that the answer would be an input: remove it from `features`"],
    );
    oasis("\"Age\"", "\"ID\"", &expect!["p.toml:10: `ID` identifies the patient, so it cannot be a feature: remove it"]);
    oasis("id = \"ID\"\n", "", &expect!["p.toml:5: [records] has no `id`; name the column that identifies the patient"]);
    oasis(
        "{ID}_a",
        "{ID_a",
        &expect![[
            r#"p.toml:9: `image` in [records] is "{ID_a"; write a column, or one in braces with a text around it, such as "{ID}_axial""#
        ]],
    );
    oasis(
        "{ID}_a",
        "{Subject}_a",
        &expect!["p.toml:9: `image` in [records]: the table has no column `Subject`; it has `ID`, `M/F`, `Age`, `Educ`, `CDR`"],
    );
    oasis(
        "id = \"ID\"",
        "id = \"ID\"\nhistory = \"1y\"\ntime = \"Age\"",
        &expect![[r#"
            p.toml:9: `history` in [records] is not read of a table by this version; its facts hold at any time: remove it, or name the `columns` of a table with a statement a row
            p.toml:10: `time` in [records] is not read of a table by this version; its facts hold at any time: remove it, or name the `columns` of a table with a statement a row"#]],
    );
    oasis("features = [\"Age\", \"M/F\"]", "features = []", &expect!["p.toml:10: `features` in [records] is empty"]);
    oasis(
        "features = [\"Age\", \"M/F\"]",
        "features = { cap = 3 }",
        &expect![[r#"p.toml:10: `features` in [records] must be a list of texts such as ["a", "b"], not a table"#]],
    );
    oasis(
        "above = 0",
        "above = 0, equals = \"1\"",
        &expect!["p.toml:16: a column becomes a label by one of above, equals and classes; found above and equals"],
    );
    oasis(
        "above = 0",
        "within = \"90d\", above = 0",
        &expect!["p.toml:16: `within` does not go with `column`, which takes classes, names, above, equals"],
    );
    oasis(
        "column = \"CDR\", above = 0",
        "condition = \"a|b\", within = \"90d\"",
        &expect![[
            r#"p.toml:16: `condition` is for events (FHIR, MEDS, OMOP, `columns`); of a table with a row a patient a label is a column"#
        ]],
    );
    lung(
        "history = \"365d\"",
        "history = \"all\"\nid = \"ID\"\nfeatures = [\"http://loinc.org|2339-0\", \"age\", \"weight\"]",
        &expect![[r#"
        p.toml:11: `id` in [records] is for format = "csv"; FHIR says itself who, what and when: remove it
        p.toml:12: `features` in [records] has "weight"; write system|code such as "http://loinc.org|2339-0", "age" or "sex""#]],
    );
    lung(
        "history = \"365d\"",
        "features = { cap = 0, min_share = 2 }",
        &expect![[r#"
        p.toml:10: `cap` in records.features is 0, which is out of range; allowed: 1 to 4096
        p.toml:10: `min_share` in records.features is 2, which is out of range; allowed: 0 or more and at most 1"#]],
    );
}

#[test]
fn everything_at_once_in_the_order_of_lines() {
    check(
        "sead = 3\n[images]\nkind = \"tiff\"\n[model]\nfussion = 1\n[[task]]\nname = \"t\"\n",
        &[],
        &expect![[r#"
            p.toml: the pipeline has no `name`; write one such as name = "lung"
            p.toml: the pipeline has no `records`; labels come from the records: add it, and record = "none" in [model] to train on images alone
            p.toml:1: unknown key `sead`; did you mean `seed`?
            p.toml:2: [images] has no `path`; write path = "…", relative to the current directory
            p.toml:3: `kind` in [images] is "tiff"; allowed: dicom, nifti, picture
            p.toml:5: unknown key `fussion` in [model]; did you mean `fusion`?
            p.toml:6: [[task]] has no `kind`; write kind = "binary", or another of those that docs/guide.md lists
            p.toml:6: [[task]] has no `label`; write label = { condition = "system|code", within = "180d" }"#]],
    );
}

#[test]
fn a_network_over_volumes_needs_volumes() {
    #[track_caller]
    fn refused(overrides: &[&str], why: &str) {
        let said = parse(LUNG, overrides).unwrap_err().to_string();
        assert!(said.lines().count() == 1 && said.contains(why), "{said}");
    }
    let volume = "model.image=resnet18-3d";
    refused(&[volume], "is a network over volumes; write slices = 8 in [images]");
    refused(&[volume, "images.slices=8", "model.slices=attention"], "a resnet18-3d looks at the volume: leave it out");
    assert!(parse(LUNG, &[volume, "images.slices=8"]).is_ok());
}
