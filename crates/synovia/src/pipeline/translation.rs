//! A pipeline's settings in the words of the crates that do the work.

use std::path::Path;

use synovia_cohort::TaskKind;
use synovia_images::{ImagesError, Login, Preparation, Server, Source};
use synovia_records::{CsvLayout, EndpointSpec, FeatureConfig, FormatConfig, LabelSpec, Outcome};

use super::settings::{
    Access, ColumnRule, EndpointLabel, EndpointSettings, Features, ImageKind, Images, Label, OutcomeLabel, Pipeline, RecordFormat,
    TaskSettings, Tasks,
};
use super::span::TimeSpan;
use crate::failure::UsageError;

impl From<ImageKind> for synovia_images::ImageKind {
    fn from(kind: ImageKind) -> Self {
        match kind {
            ImageKind::Dicom => Self::Dicom,
            ImageKind::Nifti => Self::Nifti,
            ImageKind::Picture => Self::Picture,
        }
    }
}

impl Images {
    /// How every image is prepared.
    pub fn preparation(&self) -> Preparation {
        let synovia_images::Selection { slices, slice_spacing_mm, .. } = self.selection;
        let (size, window, spacing_mm) = (self.size, self.window, self.spacing);
        Preparation { size, window, channels: slices, slices, spacing_mm, slice_spacing_mm, ..Preparation::default() }
    }

    /// Where they come from. A login is taken out of the environment now.
    pub fn source(&self) -> anyhow::Result<Source> {
        let Some(url) = address(&self.path) else { return Ok(Source::open(&self.path)?) };
        let Access { query, user_variable, password_variable, token_variable } = &self.access;
        let variable = |name: &String| {
            std::env::var(name).map_err(|_| UsageError(format!("the environment variable {name}, which [images] names, is not set")))
        };
        let login = match (user_variable, password_variable, token_variable) {
            (Some(user), Some(password), _) => Login::Basic { user: variable(user)?, password: variable(password)? },
            (_, _, Some(token)) => Login::Bearer(variable(token)?),
            _ => Login::None,
        };
        Ok(Source::server(Server::new(url, login, query.clone()).map_err(ImagesError::Server)?))
    }
}

/// The address that a path is, if it is one.
pub fn address(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://"))
}

impl Pipeline {
    /// How the records are read. Columns that labels come from are read besides those that are inputs.
    pub fn format_config(&self) -> FormatConfig {
        match &self.records.format {
            RecordFormat::Fhir { .. } => FormatConfig::fhir(),
            RecordFormat::Meds { .. } => FormatConfig::meds(),
            RecordFormat::Omop { .. } => FormatConfig::omop(),
            RecordFormat::Long { columns, .. } => FormatConfig::long(columns.clone()),
            RecordFormat::Csv { id, image, features, categories } => FormatConfig::csv(CsvLayout {
                id: id.clone(),
                image: image.as_ref().map(|link| link.column.clone()),
                image_names: image.iter().map(|link| link.name("{}")).collect(),
                features: features.clone(),
                labels: self.other_columns(features),
                categories: self.categories(categories),
                ..CsvLayout::default()
            }),
        }
    }

    /// Columns that are read besides the features: labels, and what rules and splits of the cohort ask for.
    fn other_columns(&self, features: &[String]) -> Vec<String> {
        let mut columns: Vec<String> = self.tasks.columns().map(str::to_owned).collect();
        for column in self.cohort.columns() {
            if !columns.iter().chain(features).any(|known| known == column) {
                columns.push(column.to_owned());
            }
        }
        columns
    }

    /// Columns that are read as texts.
    fn categories(&self, given: &[String]) -> Vec<String> {
        let mut categories: Vec<String> = given.iter().cloned().chain(self.label_categories()).collect();
        let RecordFormat::Csv { features, .. } = &self.records.format else { return categories };
        // What a feature's numbers are is for `categories` to say, and not for a rule about it.
        let is_taken =
            |column: &str| features.iter().any(|feature| feature == column) || self.tasks.columns().any(|of_task| of_task == column);
        let more = self.cohort.text_columns().filter(|column| !is_taken(column));
        for column in more {
            if !categories.iter().any(|known| known == column) {
                categories.push(column.to_owned());
            }
        }
        categories
    }

    /// How records are read to predict from: as [`Pipeline::format_config`], but a table need not have the labels' columns.
    pub fn input_format_config(&self) -> FormatConfig {
        let mut config = self.format_config();
        if let Some(layout) = &mut config.csv {
            layout.labels.clear();
            layout.categories.retain(|category| layout.features.contains(category));
        }
        config
    }

    /// Columns of labels that are compared as texts, so that `1` stays `1` and does not become a number.
    fn label_categories(&self) -> impl Iterator<Item = String> {
        let of_endpoints = self.tasks.endpoints.iter().filter_map(|endpoint| match &endpoint.label {
            EndpointLabel::TreatedColumn { outcome: OutcomeLabel::Binary(label), .. } => Some(label),
            _ => None,
        });
        self.tasks.classes.iter().map(|task| &task.label).chain(of_endpoints).filter_map(|label| match label {
            Label::Column { column, rule: ColumnRule::Equals { .. } | ColumnRule::Classes(_) } => Some(column.clone()),
            _ => None,
        })
    }

    /// Which facts and codes become features.
    pub fn feature_config(&self) -> FeatureConfig {
        let none = FeatureConfig { age: false, sex: false, codes: Some(Vec::new()), ..FeatureConfig::default() };
        match (&self.records.format, self.records.format.events()) {
            (RecordFormat::Csv { features, .. }, _) => FeatureConfig { facts: features.clone(), ..none },
            (_, Some((_, Features::Frequent { cap, min_share, statistics, windows, roll_up }))) => FeatureConfig {
                max_features: *cap,
                min_share: *min_share,
                statistics: statistics.clone(),
                windows_days: windows.iter().map(|window| window.days()).collect(),
                roll_up: *roll_up,
                ..FeatureConfig::default()
            },
            (_, Some((_, Features::Listed(listed)))) => {
                let has = |name: &str| listed.iter().any(|listed| listed == name);
                let codes: Vec<String> = listed.iter().filter(|name| name.contains('|')).cloned().collect();
                // A code with several coded answers is several features, so that no cap goes with a list.
                FeatureConfig { age: has("age"), sex: has("sex"), max_features: usize::MAX, codes: Some(codes), ..none }
            }
            (_, None) => none,
        }
    }
}

impl Tasks {
    /// Columns of a table that they are read from.
    fn columns(&self) -> impl Iterator<Item = &str> {
        let of_classes = self.classes.iter().filter_map(|task| task.label.column());
        of_classes.chain(self.endpoints.iter().flat_map(|endpoint| endpoint.label.columns()))
    }
}

impl Label {
    fn column(&self) -> Option<&str> {
        match self {
            Self::Column { column, .. } => Some(column),
            Self::Condition { .. } | Self::Observation { .. } | Self::Conclusion { .. } => None,
        }
    }

    /// How it is read from a record.
    fn spec(&self) -> LabelSpec {
        match self {
            Self::Condition { condition, within } => LabelSpec::Condition { code: condition.clone(), within_days: within.days() },
            Self::Observation { observation, within, answers } => {
                LabelSpec::Observation { code: observation.clone(), within_days: within.days(), classes: answers.classes.clone() }
            }
            Self::Conclusion { report, conclusion, within } => {
                LabelSpec::Conclusion { report: report.clone(), conclusion: conclusion.clone(), within_days: within.days() }
            }
            Self::Column { column, rule } => match rule {
                ColumnRule::Above { above } => LabelSpec::Column { name: column.clone(), above: Some(*above), equals: None },
                ColumnRule::Equals { equals } => LabelSpec::Column { name: column.clone(), above: None, equals: Some(equals.clone()) },
                ColumnRule::Classes(classes) => LabelSpec::Category { name: column.clone(), classes: classes.classes.clone() },
            },
        }
    }
}

fn observed(observation: &str, unit: &str, within: TimeSpan) -> EndpointSpec {
    EndpointSpec::Observation { code: observation.to_owned(), within_days: within.days(), unit: unit.to_owned() }
}

impl OutcomeLabel {
    fn column(&self) -> Option<&str> {
        match self {
            Self::Binary(label) => label.column(),
            Self::Observation { .. } => None,
            Self::Column { column } => Some(column),
        }
    }

    fn spec(&self) -> Outcome {
        match self {
            Self::Binary(label) => Outcome::Binary(label.spec()),
            Self::Observation { observation, unit, within } => Outcome::Number(Box::new(observed(observation, unit, *within))),
            Self::Column { column } => Outcome::Number(Box::new(EndpointSpec::Column { name: column.clone() })),
        }
    }
}

impl EndpointLabel {
    fn columns(&self) -> impl Iterator<Item = &str> {
        let both = match self {
            Self::Observation { .. } | Self::Event { .. } | Self::Treated { .. } => [None, None],
            Self::Column { column } => [Some(column.as_str()), None],
            Self::Columns { column, event } => [Some(column.as_str()), Some(event.as_str())],
            Self::TreatedColumn { outcome, treatment, .. } => [outcome.column(), Some(treatment.as_str())],
        };
        both.into_iter().flatten()
    }
}

impl EndpointSettings {
    /// How its numbers are read from a record.
    pub fn spec(&self) -> EndpointSpec {
        match &self.label {
            EndpointLabel::Observation { observation, unit, within } => observed(observation, unit, *within),
            EndpointLabel::Event { event, within } => EndpointSpec::Event { pattern: event.0.clone(), within_days: within.days() },
            EndpointLabel::Column { column } => EndpointSpec::Column { name: column.clone() },
            EndpointLabel::Columns { column, event } => EndpointSpec::Columns { days: column.clone(), event: event.clone() },
            EndpointLabel::Treated { outcome, treatment, started, .. } => {
                EndpointSpec::Treated { outcome: outcome.spec(), arms: treatment.clone(), within_days: started.days() }
            }
            EndpointLabel::TreatedColumn { outcome, treatment, .. } => {
                EndpointSpec::TreatedFact { outcome: outcome.spec(), treatment: treatment.clone() }
            }
        }
    }
}

impl TaskSettings {
    /// How the label is read from a record.
    pub fn label_spec(&self) -> LabelSpec {
        self.label.spec()
    }

    /// How many classes a label may have: its value is less than this.
    pub fn n_classes(&self) -> usize {
        match self.kind {
            TaskKind::Binary => 2,
            TaskKind::Multiclass | TaskKind::Ordinal => self.task().classes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use synovia_cohort::{RejectedLog, Time};
    use synovia_records::{LabelOutcome, Statistic};

    use super::*;

    const TABLE: &str = "Subject,Weight,Site,CDR\na,70.5,1,0\nb,,2,0.5\nc,81,1,\nd,64,2,1\n";

    /// The labels of the table's patients a to d, read by the records crate as the pipeline tells it to.
    #[track_caller]
    fn check(rule: &str, expected: [Option<f32>; 4]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        std::fs::write(&path, TABLE).unwrap();
        let toml = format!(
            "name = \"p\"\n[records]\npath = {path:?}\nformat = \"csv\"\nid = \"Subject\"\nfeatures = [\"Weight\", \"Site\"]\ncategories = [\"Site\"]\n\
             [[task]]\nname = \"t\"\nlabel = {{ column = \"CDR\", {rule} }}\nkind = \"binary\"\n",
        );
        let kind = if rule.matches(',').count() > 1 { "multiclass" } else { "binary" };
        let pipeline = Pipeline::parse(&toml.replace("binary", kind), &[], None).unwrap();
        let rejected = RejectedLog::counting();
        let spill = dir.path().join("spill");
        let store = synovia_records::ingest(&path, &pipeline.format_config(), &spill, &rejected, &|_| ()).unwrap();
        assert_eq!(rejected.total(), 0);
        let mut records: Vec<_> = (0..store.n_partitions()).flat_map(|k| store.load(k).unwrap()).collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        let label = pipeline.tasks.classes[0].label_spec();
        let labels: Vec<Option<f32>> = records
            .iter()
            .map(|record| match label.label(record, Time::from_seconds(0)) {
                LabelOutcome::Known(label) => Some(label),
                LabelOutcome::Unknown(_) => None,
            })
            .collect();
        assert_eq!(labels, expected, "{rule}");
        assert!(labels.iter().flatten().all(|label| (*label as usize) < pipeline.tasks.classes[0].n_classes()));
        assert_eq!(pipeline.feature_config().facts, ["Weight", "Site"], "a label is no feature");
    }

    #[test]
    fn labels_of_a_table() {
        check("above = 0", [Some(0.0), Some(1.0), None, Some(1.0)]);
        check("equals = \"0.5\"", [Some(0.0), Some(1.0), None, Some(0.0)]);
        check("classes = [\"0\", \"0.5\", \"1\"]", [Some(0.0), Some(1.0), None, Some(2.0)]);
        check("classes = [\"0\", \"1\"]", [Some(0.0), None, None, Some(1.0)]);
    }

    #[test]
    fn listed_features_are_all_and_only_those() {
        let dir = tempfile::tempdir().unwrap();
        let config = |features: &str| {
            let toml = format!(
                "name = \"p\"\n[records]\npath = {:?}\nformat = \"fhir\"\n{features}\n[[task]]\nname = \"t\"\nkind = \"binary\"\n\
                 label = {{ condition = \"s|c\", within = \"1d\" }}\n",
                dir.path()
            );
            Pipeline::parse(&toml, &[], None).unwrap().feature_config()
        };
        std::fs::write(dir.path().join("x.ndjson"), "").unwrap();
        assert_eq!(config(""), FeatureConfig::default());
        let some = FeatureConfig { max_features: 9, min_share: 0.5, ..FeatureConfig::default() };
        assert_eq!(config("features = { cap = 9, min_share = 0.5 }"), some);
        let windows = config("features = { statistics = [\"mean\", \"time_since\"], windows = [\"30d\", \"1y\"], roll_up = true }");
        assert_eq!(windows.statistics, [Statistic::Mean, Statistic::TimeSince]);
        assert!(windows.windows_days.len() == 2 && windows.windows_days[0] == 30.0 && windows.roll_up);
        let listed = config("features = [\"s|a\", \"age\"]");
        assert_eq!((listed.age, listed.sex, listed.codes), (true, false, Some(vec!["s|a".to_owned()])));
    }
}
