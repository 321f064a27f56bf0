//! A leak, how sure it is, and what to do about it.

use std::fmt;

use serde::Serialize;

/// How sure a leak is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is there: what was measured is wrong.
    Certain,
    /// It looks like one; somebody who knows the data must say.
    Likely,
}

impl Severity {
    /// As printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certain => "leak",
            Self::Likely => "likely leak",
        }
    }
}

/// Kinds of leak that are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A patient's examples are in two splits.
    PatientInTwoSplits,
    /// Patients of one household or other group, which the split was told to keep together, are in two splits.
    GroupInTwoSplits,
    /// An example is in the table twice.
    ExampleTwice,
    /// Two examples of different splits have the same SOP Instance UID.
    SameInstance,
    /// Two examples of different splits have the same pixels.
    SamePixels,
    /// Two examples of different splits have nearly the same pixels.
    NearDuplicate,
    /// Two patient ids of different splits have the same name, birth date and sex.
    SamePerson,
    /// A feature row is not what the events up to the prediction time give.
    FutureEvents,
    /// An image is from after the prediction time.
    FutureImage,
    /// A feature alone tells the label.
    FeatureTellsLabel,
    /// The site tells the label.
    SiteTellsLabel,
    /// The scanner tells the label.
    ScannerTellsLabel,
    /// The file's format or folder tells the label.
    FormatTellsLabel,
    /// A word of the reports tells the label.
    TextTellsLabel,
    /// The predictions are of other splits than the cohort's.
    PredictionsDisagree,
}

impl Kind {
    /// How sure one of this kind is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::NearDuplicate
            | Self::SamePerson
            | Self::FeatureTellsLabel
            | Self::SiteTellsLabel
            | Self::ScannerTellsLabel
            | Self::FormatTellsLabel
            | Self::TextTellsLabel => Severity::Likely,
            _ => Severity::Certain,
        }
    }

    /// What to do.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::PatientInTwoSplits | Self::GroupInTwoSplits => "run the cohort stage again; do not edit its splits",
            Self::ExampleTwice => "run the cohort stage again",
            Self::SameInstance | Self::SamePixels => "find out which patient the image is of, remove the copy, and run again from ingest",
            Self::NearDuplicate => "look at both images; if one is made from the other, keep one, and run again from ingest",
            Self::SamePerson => "join the two ids in the source, or keep both in one split",
            Self::FutureEvents => "run the cohort stage again: the stored features were not made from what was known",
            Self::FutureImage => "check the clock of the scanner or the prediction time, and run the cohort stage again",
            Self::FeatureTellsLabel => "if it is written down because of the outcome, leave it out of the features",
            Self::SiteTellsLabel | Self::ScannerTellsLabel => {
                "balance the label over sites and scanners, or split by site and measure on one that was not trained on"
            }
            Self::FormatTellsLabel => "convert all images in the same way, whatever their label",
            Self::TextTellsLabel => "remove the section of the report that states the outcome before text becomes an input",
            Self::PredictionsDisagree => "run train and evaluate again",
        }
    }
}

/// Something that lets a model know what it should not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// The cohort or file, relative to the run folder.
    pub place: String,
    /// What kind it is.
    pub kind: Kind,
    /// How sure.
    pub severity: Severity,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub advice: &'static str,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.evidence)
    }
}
