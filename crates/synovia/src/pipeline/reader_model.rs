//! `[model]`

use std::path::PathBuf;

use synovia_encoders::NormKind;
use synovia_fusion::{Absent, FusionKind};

use super::reader::{Readable, readable};
use super::section::Section;
use super::settings::{ImageEncoder, Images, Model, RecordEncoder, Slices};

/// Its keys.
pub(super) const KEYS: [&str; 11] =
    ["image", "image_weights", "slices", "width", "record", "fusion", "absent", "embedding", "norm", "dropout", "modality_dropout"];

/// What the section says; `images` where there is a section of images.
pub(super) fn read(section: &Section<'_>, images: bool) -> Model {
    let later = "is not built by this version; encoders that are";
    let image = section.choice(
        "image",
        &[
            ("resnet18", ImageEncoder::Resnet18),
            ("resnet34", ImageEncoder::Resnet34),
            ("resnet50", ImageEncoder::Resnet50),
            ("densenet121", ImageEncoder::Densenet121),
            ("convnext-tiny", ImageEncoder::ConvnextTiny),
            ("vit-tiny", ImageEncoder::VitTiny),
            ("resnet18-3d", ImageEncoder::Resnet18Volume),
            ("none", ImageEncoder::None),
        ],
        &[],
    );
    if !images && image.and_then(ImageEncoder::kind).is_some() {
        section.wrong("image", "`image` in [model] needs an [images] section; add one, or write image = \"none\"");
    }
    let image = image.unwrap_or(if images { ImageEncoder::Resnet18 } else { ImageEncoder::None });
    let record = section.choice(
        "record",
        &[
            ("table", RecordEncoder::Table),
            ("linear", RecordEncoder::Linear),
            ("transformer", RecordEncoder::Transformer),
            ("cross", RecordEncoder::Cross),
            ("none", RecordEncoder::None),
        ],
        &[("sequence", later)],
    );
    let record = record.unwrap_or(RecordEncoder::Table);
    if image == ImageEncoder::None && record == RecordEncoder::None {
        section.wrong("record", "neither images nor records are an input; write record = \"table\", or image = \"resnet18\" with [images]");
    }
    let image_weights = section.word("image_weights").map(PathBuf::from);
    if let Some(path) = &image_weights {
        if image == ImageEncoder::None {
            section.wrong("image_weights", "`image_weights` in [model] is about images, which are no input here; leave it out");
        }
        match readable(path) {
            Ok(Readable::File) => {}
            Ok(_) => {
                section
                    .wrong("image_weights", format!("`image_weights`: {} is a folder; give a .pth or .safetensors file", path.display()));
            }
            Err(error) => section.wrong("image_weights", format!("`image_weights`: {} cannot be read: {error}", path.display())),
        }
    }
    Model {
        image,
        image_weights,
        slices: section.choice("slices", &SLICES, &[]).unwrap_or_default(),
        width: section.count("width", 4..=128).unwrap_or(16),
        record,
        fusion: section.choice("fusion", &FUSIONS, &[]).unwrap_or(FusionKind::Gated),
        absent: section.choice("absent", &ABSENT, &[]).unwrap_or_default(),
        embedding: section.count("embedding", 4..=2048).unwrap_or(128),
        norm: section.choice("norm", &[("batch", NormKind::Batch), ("group", NormKind::Group)], &[]).unwrap_or_default(),
        dropout: section.number("dropout", 0.0..1.0).unwrap_or(0.1),
        modality_dropout: section.number("modality_dropout", 0.0..1.0).unwrap_or(0.2),
    }
}

/// What does not go with the images, where there are any.
pub(super) fn check(top: &Section<'_>, model: &Model, images: Option<&Images>) {
    if let (Some(images), Some(kind)) = (images, model.image.kind()) {
        let (name, size) = (kind.as_str(), images.size);
        if size < kind.least_side() {
            top.wrong("images", format!("`size` in [images] is {size}; a {name} needs images of at least {}", kind.least_side()));
        } else if model.image == ImageEncoder::VitTiny && !size.is_multiple_of(kind.least_side()) {
            let why = format!("`size` in [images] is {size}; a {name} needs a multiple of {}, the side of its patches", kind.least_side());
            top.wrong("images", why);
        }
    }
    if !model.slices.is_channels() {
        if images.is_none_or(|images| images.selection.slices == 1) {
            top.wrong("model", "`slices` in [model] is about volumes of several slices; write slices = 8 in [images], or leave it out");
        } else if model.image == ImageEncoder::None {
            top.wrong("model", "`slices` in [model] is about images, which are no input here; leave it out");
        }
    }
    if model.image == ImageEncoder::Resnet18Volume {
        if images.is_some_and(|images| images.selection.slices == 1) {
            top.wrong("model", "`image` in [model] is a network over volumes; write slices = 8 in [images], or image = \"resnet18\"");
        } else if !model.slices.is_channels() {
            top.wrong(
                "model",
                "`slices` in [model] is for networks that look at one slice; a resnet18-3d looks at the volume: leave it out",
            );
        }
    }
    if model.image == ImageEncoder::VitTiny {
        if !model.width.is_multiple_of(4) {
            top.wrong("model", format!("`width` in [model] is {}; a vit-tiny needs a multiple of 4", model.width));
        }
        if model.image_weights.is_some() {
            let why = "`image_weights` in [model]: there are no published weights of this form of a vit-tiny; leave it out";
            top.wrong("model", why);
        }
    }
}

const SLICES: [(&str, Slices); 2] = [("channels", Slices::Channels), ("attention", Slices::Attention)];

const FUSIONS: [(&str, FusionKind); 10] = [
    ("gated", FusionKind::Gated),
    ("concat", FusionKind::Concat),
    ("late", FusionKind::Late),
    ("late-weighted", FusionKind::LateWeighted),
    ("film", FusionKind::Film),
    ("low-rank", FusionKind::LowRank),
    ("attention", FusionKind::Attention),
    ("experts", FusionKind::Experts),
    ("bottleneck", FusionKind::Bottleneck),
    ("shared-private", FusionKind::SharedPrivate),
];

const ABSENT: [(&str, Absent); 3] = [("mask", Absent::Mask), ("token", Absent::Token), ("reconstruct", Absent::Reconstruct)];
