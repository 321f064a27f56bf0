//! The settings of a pipeline, checked: what a stage is given.
//!
//! Serialising a [`Pipeline`] gives the layout of the file it was read from, with every default written out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};
use synovia_encoders::{ImageEncoderKind, NormKind};
use synovia_evaluation::Calibrator;
use synovia_fusion::{Absent, FusionKind};
use synovia_records::{LongLayout, Statistic};
use synovia_training::{Balance, Branches, Imbalance, Privacy};

pub use super::settings_cohort::{
    Cohort, Competing, Date, EVENT_KEYS, Events, IndexEvent, Named, Offset, Question, Rule, SplitSettings, Unheard, Unit,
};
pub use super::settings_task::{Better, Classes, ColumnRule, EndpointLabel, EndpointSettings, Label, OutcomeLabel, TaskSettings, Tasks};
use super::span::TimeSpan;

/// A pipeline that can be run: every key known, every value in its range, every path readable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pipeline {
    /// Its name: the run folder is `runs/NAME` unless another is given.
    pub name: String,
    /// Every random choice follows from it.
    pub seed: u64,
    /// Where the images are; `None` for a pipeline of records alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// Where the records are. Labels come from them, so that a pipeline of images alone has them too, with
    /// [`RecordEncoder::None`].
    pub records: Records,
    /// How patients become examples, and which of them train.
    pub cohort: Cohort,
    /// What is predicted: at least one.
    #[serde(rename = "task")]
    pub tasks: Tasks,
    /// The network.
    pub model: Model,
    /// How it is trained.
    pub training: Training,
    /// What the report shows.
    #[serde(skip_serializing_if = "ReportSettings::is_plain")]
    pub report: ReportSettings,
}

/// `[report]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportSettings {
    /// Whether single test patients are shown, with their image and values. Default true.
    pub cases: bool,
}

impl ReportSettings {
    const fn is_plain(&self) -> bool {
        self.cases
    }
}

/// `[images]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Images {
    /// Folder, DICOMDIR or zip archive, relative to the current directory; or the address of a DICOMweb service.
    pub path: PathBuf,
    /// How a DICOMweb service is asked.
    #[serde(flatten)]
    pub access: Access,
    /// What its files are.
    pub kind: ImageKind,
    /// Side of the square that every image becomes, in pixels: 16 to 1024. Default 224.
    pub size: usize,
    /// Millimetres that a pixel of it is wide and high, about the image's middle; what lies outside of the square is cut off. Default:
    /// the image fills the square.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spacing: Option<f64>,
    /// Which values become black and white: `file`, a name such as `lung`, `40/400`, `1%-99%`. Default `file`.
    pub window: synovia_images::Window,
    /// `views` and `laterality`: which images are taken at all, default any; `slices` and `slice_spacing` of a volume.
    #[serde(flatten)]
    pub selection: synovia_images::Selection,
}

/// How a DICOMweb service is asked; nothing for files.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Access {
    /// Matching keys of the studies, such as `ModalitiesInStudy=CT`. Default: all studies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
    /// Environment variable that holds the name to log in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_variable: Option<String>,
    /// Environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_variable: Option<String>,
    /// Environment variable that holds a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_variable: Option<String>,
}

/// What the files of an image folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// DICOM Part 10 files, grouped into studies.
    Dicom,
    /// NIfTI-1 volumes, each file a study named by its stem.
    Nifti,
    /// PNG, JPEG and TIFF, each file a study named by its stem.
    Picture,
}

/// `[records]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Records {
    /// File or folder; relative to the current directory.
    pub path: PathBuf,
    /// What it holds, with the settings that only this format has.
    #[serde(flatten)]
    pub format: RecordFormat,
}

/// What the records are written in.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "format", rename_all = "lowercase")]
pub enum RecordFormat {
    /// FHIR R4: NDJSON (bulk export), plain or gzip, and Bundles.
    Fhir {
        /// How far back from the prediction time events count. Default 365d.
        history: History,
        /// Which of the record becomes features. Default [`Features::default`].
        features: Features,
    },
    /// MEDS: Parquet shards, a statement a row.
    Meds {
        /// As of FHIR.
        history: History,
        /// As of FHIR.
        features: Features,
    },
    /// OMOP CDM 5.4: a file a table, CSV or Parquet.
    Omop {
        /// As of FHIR.
        history: History,
        /// As of FHIR.
        features: Features,
    },
    /// A table with a header, a statement a row: `format = "csv"` with `columns`.
    #[serde(rename = "csv")]
    Long {
        /// Which columns say who, when, what and how much.
        columns: LongLayout,
        /// As of FHIR.
        history: History,
        /// As of FHIR.
        features: Features,
    },
    /// A table with a header, a row a patient. Its facts have no times: that they were known at the prediction time is
    /// what listing them as features says.
    Csv {
        /// Column that identifies the patient.
        id: String,
        /// How a row names its image: by the image file's stem, or its Study Instance UID.
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<ImageLink>,
        /// Columns that are inputs, and no others.
        features: Vec<String>,
        /// Those of them whose numbers are names (`1` for one hospital, `2` for another). Columns of texts need no mention.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        categories: Vec<String>,
    },
}

/// How far back from the prediction time events count. Written `all`, or as a [`TimeSpan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Without a limit.
    All,
    /// So far.
    Last(TimeSpan),
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Last(span) => serializer.collect_str(span),
        }
    }
}

impl Records {
    /// How many days before the prediction time count; `None` for no limit.
    pub fn history_days(&self) -> Option<f64> {
        match self.format.events()?.0 {
            History::Last(span) => Some(span.days()),
            History::All => None,
        }
    }
}

impl RecordFormat {
    /// How far back events count and which become features, where the records are events.
    pub const fn events(&self) -> Option<(&History, &Features)> {
        match self {
            Self::Fhir { history, features }
            | Self::Meds { history, features }
            | Self::Omop { history, features }
            | Self::Long { history, features, .. } => Some((history, features)),
            Self::Csv { .. } => None,
        }
    }
}

/// Which events of a record become features.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Features {
    /// The most frequent ones of the training patients.
    Frequent {
        /// At most so many features. Default 128.
        cap: usize,
        /// Only those that at least this share of the training patients have, 0 to 1. Default 0.05.
        min_share: f64,
        /// Columns of each measurement. Default `["last"]`.
        #[serde(skip_serializing_if = "is_last_alone")]
        statistics: Vec<Statistic>,
        /// Windows before the prediction time in which each statistic is taken; none for the whole history.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        windows: Vec<TimeSpan>,
        /// Whether ICD-10 codes count for their categories too. Default false.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        roll_up: bool,
    },
    /// These, as `system|code`, `age` or `sex`.
    Listed(Vec<String>),
}

impl Default for Features {
    fn default() -> Self {
        Self::Frequent { cap: 128, min_share: 0.05, statistics: vec![Statistic::Last], windows: Vec::new(), roll_up: false }
    }
}

fn is_last_alone(statistics: &[Statistic]) -> bool {
    statistics == [Statistic::Last]
}

/// The name of a row's image, from one of its columns: `ID`, or `{ID}_a` where a text stands around the column's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLink {
    /// Text before.
    pub prefix: String,
    /// The column.
    pub column: String,
    /// Text after.
    pub suffix: String,
}

impl ImageLink {
    /// Reads `COLUMN` or `prefix{COLUMN}suffix`; `None` when the braces do not name one column.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |prefix: &str, column: &str, suffix: &str| {
            let sound = !column.trim().is_empty() && ![prefix, column, suffix].iter().any(|part| part.contains(['{', '}']));
            sound.then(|| Self { prefix: prefix.to_owned(), column: column.to_owned(), suffix: suffix.to_owned() })
        };
        match text.split_once('{') {
            None => plain("", text, ""),
            Some((prefix, rest)) => rest.split_once('}').and_then(|(column, suffix)| plain(prefix, column, suffix)),
        }
    }

    /// The image's name for a row whose column holds `cell`.
    pub fn name(&self, cell: &str) -> String {
        format!("{}{}{}", self.prefix, cell, self.suffix)
    }
}

impl Serialize for ImageLink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.prefix.is_empty() && self.suffix.is_empty() {
            serializer.serialize_str(&self.column)
        } else {
            serializer.collect_str(&format_args!("{}{{{}}}{}", self.prefix, self.column, self.suffix))
        }
    }
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// Encoder of the images: `resnet18`, `resnet34`, `resnet50`, `densenet121`, `convnext-tiny`, `vit-tiny`, `resnet18-3d` (of volumes), or `none`. Default `resnet18`
    /// where there are images. The kernels know the first two; the others train by burn's own operations, several times slower.
    pub image: ImageEncoder,
    /// Weights that it begins with: a checkpoint with torchvision's names, `.pth` or safetensors. Default: random ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_weights: Option<PathBuf>,
    /// What the slices of a volume are to it: `channels` of one image, or looked at one by one and put together by `attention`. Default
    /// `channels`.
    #[serde(skip_serializing_if = "Slices::is_channels")]
    pub slices: Slices,
    /// Channels of its first block, or of each head of attention: 4 to 128. Default 16; 64 is what is published, of `ConvNeXt` 96.
    pub width: usize,
    /// Encoder of the records: `table`, `linear`, `transformer`, `cross`, or `none`. Default `table`.
    pub record: RecordEncoder,
    /// How the embeddings become one: `gated`, `concat`, `late`, `late-weighted`, `film`, `low-rank`, `attention`, `experts`,
    /// `bottleneck` or `shared-private`.
    /// Default `gated`.
    pub fusion: FusionKind,
    /// What stands where a modality is absent: nothing (`mask`), a learnt embedding (`token`), or one made of those that are there
    /// (`reconstruct`). Default `mask`.
    #[serde(skip_serializing_if = "Absent::is_mask")]
    pub absent: Absent,
    /// Width of each embedding: 4 to 2048. Default 128.
    pub embedding: usize,
    /// What activations are normalised over (`convnext-tiny` and `vit-tiny` within each place, whatever it is): `batch`, or `group` (channels within each example, which privacy asks for, and which
    /// shares nothing between sites; the kernels have no such tower, so that images train several times slower). Default `batch`.
    pub norm: NormKind,
    /// Share of activations dropped in training before the heads, in [0, 1). Default 0.1.
    pub dropout: f64,
    /// Probability that one of two modalities is hidden from the model in training, in [0, 1). Default 0.2.
    pub modality_dropout: f64,
}

/// Encoders of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageEncoder {
    /// A residual network of 18 layers (He et al. 2015).
    Resnet18,
    /// Of 34 layers.
    Resnet34,
    /// Of 50 layers.
    Resnet50,
    /// A densely connected network of 121 layers (Huang et al. 2017).
    Densenet121,
    /// A convolutional network in the ways of transformers (Liu et al. 2022).
    #[serde(rename = "convnext-tiny")]
    ConvnextTiny,
    /// A vision transformer (Dosovitskiy et al. 2021; Beyer et al. 2022).
    #[serde(rename = "vit-tiny")]
    VitTiny,
    /// A residual network of 18 layers over volumes (Tran et al. 2018).
    #[serde(rename = "resnet18-3d")]
    Resnet18Volume,
    /// Images are no input.
    None,
}

impl ImageEncoder {
    /// The network; `None` where images are no input.
    pub const fn kind(self) -> Option<ImageEncoderKind> {
        match self {
            Self::Resnet18 => Some(ImageEncoderKind::ResNet18),
            Self::Resnet34 => Some(ImageEncoderKind::ResNet34),
            Self::Resnet50 => Some(ImageEncoderKind::ResNet50),
            Self::Densenet121 => Some(ImageEncoderKind::DenseNet121),
            Self::ConvnextTiny => Some(ImageEncoderKind::ConvNeXtTiny),
            Self::VitTiny => Some(ImageEncoderKind::ViTTiny),
            Self::Resnet18Volume => Some(ImageEncoderKind::ResNet18Volume),
            Self::None => None,
        }
    }
}

/// What the slices of a volume are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Slices {
    /// Channels of one image.
    #[default]
    Channels,
    /// Images of their own, put together by attention (Ilse et al. 2018).
    Attention,
}

impl Slices {
    /// Whether it is the default.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    pub const fn is_channels(&self) -> bool {
        matches!(self, Self::Channels)
    }
}

/// Encoders of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordEncoder {
    /// Features of the history as one row.
    Table,
    /// The same through one dense layer: with late fusion a logistic regression.
    Linear,
    /// A transformer over a token a feature (Gorishniy et al. 2021, FT-Transformer).
    Transformer,
    /// Features multiplied with each other beside a dense layer (Wang et al. 2021, DCN-v2).
    Cross,
    /// Records give labels, but are no input.
    None,
}

impl Pipeline {
    /// Whether images are an input.
    pub fn uses_images(&self) -> bool {
        self.images.is_some() && self.model.image != ImageEncoder::None
    }

    /// Whether records are an input, and not only where labels come from.
    pub fn uses_records(&self) -> bool {
        self.model.record != RecordEncoder::None
    }
}

/// `[training]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Training {
    /// Passes over the training examples, at most: 1 to 10,000. Default 20.
    pub epochs: usize,
    /// Examples a step: 2 to 4096. Default 32.
    pub batch: usize,
    /// Batches to a step, 1 to 1024: nearly a large batch where memory has room for a small one (see
    /// [`synovia_training::TrainingSettings`]). Default 1.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// Peak learning rate of AdamW, in (0, 1]. Default 0.001.
    pub learning_rate: f64,
    /// Decoupled weight decay, in [0, 1]. Default 0.01.
    pub weight_decay: f64,
    /// Epochs, perhaps a fraction, over which the learning rate rises linearly before its cosine decay; less than `epochs`.
    /// Default: 1, or a fifth of `epochs` where that is less.
    pub warmup_epochs: f64,
    /// Norm that a gradient is clipped to, in (0, 1000]. Default 1.
    pub clip: f64,
    /// Decay a step of the weights' exponential moving average, which is what is validated and kept, in [0, 1); 0 for the
    /// weights themselves. Default 0.999; it rises to that over
    /// the first steps, so that the average is never of more than about the last tenth of a short training.
    pub ema: f64,
    /// Share of the steps, the last ones, over which the weights are averaged evenly at a learning rate that no longer falls, in [0, 1).
    /// Default 0: the moving average to the end.
    #[serde(skip_serializing_if = "is_nothing")]
    pub swa: f64,
    /// Epochs without a better validation loss after which training stops; 0 for never. Default 5.
    pub patience: usize,
    /// How examples are drawn. Default `plain`.
    pub sampling: Sampling,
    /// What each classification task's loss does about rare classes: `none`, `weights`, `focal` or `logits`. Default `none`.
    #[serde(skip_serializing_if = "Imbalance::is_none")]
    pub imbalance: Imbalance,
    /// Where it runs: `cpu`. Default `cpu`.
    pub device: Device,
    /// Threads, 1 to 1024; `None` for all cores. Results do not depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// What each task counts for, where there are several: `fixed`, `labels`, `uncertainty`, `dwa`, `gradnorm`, `pcgrad`, `cagrad`,
    /// `upgrad` or `mgda`. Default `fixed`: each the same, in units of an uninformed guess's loss.
    pub balance: Balance,
    /// What the modalities learn from each other beside the joint loss. Default nothing.
    #[serde(skip_serializing_if = "Branches::is_none")]
    pub branches: Branches,
    /// What the joint model's towers begin with: `random` weights, or those of each modality trained `alone` before it. Default `random`.
    #[serde(skip_serializing_if = "Start::is_random")]
    pub start: Start,
    /// Whether models of one modality are trained beside the joint one: what says whether it gained anything. Default true.
    #[serde(skip_serializing_if = "is_true")]
    pub singles: bool,
    /// Epochs in which image towers learn from the training images without any label before ([`synovia_training::Unlabelled`]). Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlabelled: usize,
    /// Learning rate of what begins with trained weights, as a share of `learning_rate`: 0 to 1. 0 leaves these weights as they are; their
    /// normalisation follows the data all the same. Default 1.
    pub tower_rate: f64,
    /// Whether image towers are trained by the fused kernels; else by burn's own operations, several times slower, to hold the
    /// kernels against. Default true.
    pub kernels: bool,
    /// How private training is. Default not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Privacy>,
    /// How probabilities are made to mean what they say: `temperature`, `platt`, `isotonic` or `beta`; a task of several classes is always
    /// by temperature. All are fitted in training, so that another one needs no other training. Default `temperature`.
    pub calibration: Calibrator,
    /// Random changes of the training images.
    pub augmentation: Augmentation,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_one(n: &usize) -> bool {
    *n == 1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_nothing(share: &f64) -> bool {
    *share == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_true(flag: &bool) -> bool {
    *flag
}

impl Training {
    /// The same with what does not change the result taken out: what a stage's key is made of.
    pub fn for_key(&self) -> Self {
        Self { threads: None, calibration: Calibrator::default(), ..self.clone() }
    }
}

/// How training examples are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Each example once an epoch.
    Plain,
    /// Each class of the first task as often as another.
    Balanced,
}

/// What the joint model's towers begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Weights drawn at random, as the models of one modality do.
    #[default]
    Random,
    /// The towers of the models of one modality, which are trained before it.
    Alone,
}

impl Start {
    /// Whether it is the plain way.
    pub fn is_random(&self) -> bool {
        *self == Self::Random
    }
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The processor's cores.
    Cpu,
}

/// `[training] augmentation`: the largest change, each drawn uniformly from ± that.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Augmentation {
    /// Shift in each direction, as a share of the side: 0 to 0.5. Default 0.05.
    pub shift: f64,
    /// Rotation in degrees: 0 to 180. Default 5.
    pub rotate: f64,
    /// Relative change of scale: 0 to 0.5. Default 0.05.
    pub scale: f64,
    /// Standard deviation of added Gaussian noise, of pixels in [0, 1]: 0 to 1. Default 0.01.
    pub noise: f64,
    /// Change of brightness, of pixels in [0, 1]: 0 to 1. Default 0.05.
    pub brightness: f64,
    /// Whether left and right are exchanged at random. Default false: the side of an organ or a lesion matters in most
    /// medical images.
    pub flip: bool,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { shift: 0.05, rotate: 5.0, scale: 0.05, noise: 0.01, brightness: 0.05, flip: false }
    }
}
