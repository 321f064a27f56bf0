//! `[images]`: where they are, which are taken, and how they are shown.

use std::path::Path;

use synovia_images::{BurnedIn, Login, Selection, Server, Window};

use super::reader::read_path;
use super::section::Section;
use super::settings::{Access, ImageKind, Images};
use super::translation::address;

pub(super) const KEYS: [&str; 14] = [
    "path",
    "kind",
    "size",
    "window",
    "views",
    "laterality",
    "burned_in",
    "slices",
    "spacing",
    "slice_spacing",
    "query",
    "user_variable",
    "password_variable",
    "token_variable",
];

pub(super) fn read(section: &Section<'_>) -> Option<Images> {
    let path = read_path(section, true);
    let access = read_access(section, path.as_deref());
    let kind = section.choice("kind", &[("dicom", ImageKind::Dicom), ("nifti", ImageKind::Nifti), ("picture", ImageKind::Picture)], &[]);
    if !section.has("kind") {
        section.missing("kind", "write kind = \"dicom\", kind = \"nifti\" or kind = \"picture\"");
    }
    let size = section.count("size", 16..=1024).unwrap_or(224);
    let window = section.text("window").map_or(Ok(Window::File), |text| text.parse());
    if let Err(error) = &window {
        section.wrong("window", format!("{}: {error}", section.name("window")));
    }
    let sides = [("L", "L"), ("R", "R"), ("B", "B"), ("U", "U")];
    let laterality = section.choice("laterality", &sides, &[]).map(str::to_owned);
    let slices = section.count("slices", 1..=64);
    let burned_in = section.choice("burned_in", &[("refuse", BurnedIn::Refuse), ("accept", BurnedIn::Accept)], &[]).unwrap_or_default();
    for key in
        ["views", "laterality", "burned_in"].into_iter().filter(|key| kind.is_some_and(|kind| kind != ImageKind::Dicom) && section.has(key))
    {
        section.wrong(key, format!("{}: only DICOM files tell it; remove the line, or give kind = \"dicom\"", section.name(key)));
    }
    let [spacing, slice_spacing_mm] = ["spacing", "slice_spacing"].map(|key| section.number(key, 1e-3..=100.0));
    for key in ["spacing", "slice_spacing"].into_iter().filter(|key| kind == Some(ImageKind::Picture) && section.has(key)) {
        section.wrong(key, format!("{}: pictures have no millimetres; remove the line", section.name(key)));
    }
    if slice_spacing_mm.is_some() && (slices == Some(1) || !section.has("slices")) {
        section.wrong("slice_spacing", format!("{} is the distance of several: write slices = 8 too", section.name("slice_spacing")));
    }
    let selection = Selection {
        views: section.texts("views").unwrap_or_default(),
        laterality,
        burned_in,
        slices: slices.unwrap_or(1),
        slice_spacing_mm,
    };
    Some(Images { path: path?, access, kind: kind?, size, spacing, window: window.ok()?, selection })
}

/// How a server is asked; of files there is nothing to say.
fn read_access(section: &Section<'_>, path: Option<&Path>) -> Access {
    let of_server = path.is_none_or(|path| address(path).is_some());
    for key in ["query", "user_variable", "password_variable", "token_variable"] {
        if !of_server && section.has(key) {
            section.wrong(key, format!("{} is for a DICOMweb address; remove the line, or give one as `path`", section.name(key)));
        }
    }
    let [user_variable, password_variable, token_variable] =
        ["user_variable", "password_variable", "token_variable"].map(|key| section.word(key));
    if user_variable.is_some() != password_variable.is_some() {
        let key = if user_variable.is_some() { "user_variable" } else { "password_variable" };
        section.wrong(key, "a login is `user_variable` and `password_variable`, or `token_variable`; give both, or neither");
    } else if user_variable.is_some() && token_variable.is_some() {
        section.wrong("token_variable", "a login is `user_variable` and `password_variable`, or `token_variable`; remove one");
    }
    let query = section.texts("query").unwrap_or_default();
    if let Some(url) = path.and_then(address)
        && let Err(error) = Server::new(url, Login::None, query.clone())
    {
        section.wrong("path", format!("{}: {error}", section.name("path")));
    }
    Access { query, user_variable, password_variable, token_variable }
}
