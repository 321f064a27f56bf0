//! Writes the hostile DICOM files of `fixtures/bad/dicom`, byte by byte, so that what is wrong with each is plain to see.
//!
//! `cargo run --release --example make_bad_dicom -p synovia-images -- fixtures/bad/dicom`

use std::io::Write;
use std::path::PathBuf;

/// An element in Explicit VR Little Endian.
fn element(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    value.resize(value.len().next_multiple_of(2), if matches!(vr, "OB" | "OW" | "UI") { 0 } else { b' ' });
    with_length(group, number, vr, value.len() as u32, &value)
}

/// An element that claims a length of its own.
fn with_length(group: u16, number: u16, vr: &str, length: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend(vr.as_bytes());
    if matches!(vr, "OB" | "OW" | "SQ" | "UN" | "UT") {
        bytes.extend([0, 0]);
        bytes.extend(length.to_le_bytes());
    } else {
        bytes.extend((length as u16).to_le_bytes());
    }
    bytes.extend(value);
    bytes
}

fn short(group: u16, number: u16, value: u16) -> Vec<u8> {
    element(group, number, "US", &value.to_le_bytes())
}

fn prefix(transfer_syntax: &str) -> Vec<u8> {
    let mut meta = element(0x0002, 0x0001, "OB", &[0, 1]);
    meta.extend(element(0x0002, 0x0002, "UI", b"1.2.840.10008.5.1.4.1.1.1.1"));
    meta.extend(element(0x0002, 0x0010, "UI", transfer_syntax.as_bytes()));
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    bytes.extend(element(0x0002, 0x0000, "UL", &(meta.len() as u32).to_le_bytes()));
    bytes.extend(meta);
    bytes
}

/// What the fixtures vary.
struct Image {
    syntax: &'static str,
    uid: u32,
    date: &'static str,
    frames: &'static str,
    rows: u16,
    columns: u16,
    /// Elements of group 0028 after Pixel Representation.
    more: Vec<u8>,
    pixels: Vec<u8>,
}

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

impl Image {
    fn new(uid: u32) -> Self {
        let pixels: Vec<u8> = (0..64u8).flat_map(|k| [k, 0]).collect();
        let pixels = element(0x7FE0, 0x0010, "OW", &pixels);
        Self { syntax: EXPLICIT, uid, date: "20200131", frames: "1", rows: 8, columns: 8, more: vec![], pixels }
    }

    fn bytes(&self) -> Vec<u8> {
        let uid = |kind: u32| format!("2.25.{}", 1000 * kind + self.uid);
        let mut bytes = prefix(self.syntax);
        bytes.extend(element(0x0008, 0x0016, "UI", b"1.2.840.10008.5.1.4.1.1.1.1"));
        bytes.extend(element(0x0008, 0x0018, "UI", uid(1).as_bytes()));
        bytes.extend(element(0x0008, 0x0020, "DA", self.date.as_bytes()));
        bytes.extend(element(0x0008, 0x0022, "DA", self.date.as_bytes()));
        bytes.extend(element(0x0008, 0x0032, "TM", b"101500"));
        bytes.extend(element(0x0008, 0x0060, "CS", b"DX"));
        bytes.extend(element(0x0010, 0x0010, "PN", b"SECRET^NAME"));
        bytes.extend(element(0x0010, 0x0020, "LO", b"SECRET-ID"));
        bytes.extend(element(0x0020, 0x000D, "UI", uid(2).as_bytes()));
        bytes.extend(element(0x0020, 0x000E, "UI", uid(3).as_bytes()));
        bytes.extend(short(0x0028, 0x0002, 1));
        bytes.extend(element(0x0028, 0x0004, "CS", b"MONOCHROME2"));
        bytes.extend(element(0x0028, 0x0008, "IS", self.frames.as_bytes()));
        bytes.extend(short(0x0028, 0x0010, self.rows));
        bytes.extend(short(0x0028, 0x0011, self.columns));
        bytes.extend(short(0x0028, 0x0100, 16));
        bytes.extend(short(0x0028, 0x0101, 12));
        bytes.extend(short(0x0028, 0x0102, 11));
        bytes.extend(short(0x0028, 0x0103, 0));
        bytes.extend(&self.more);
        bytes.extend(&self.pixels);
        bytes
    }
}

fn encapsulated(fragments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = with_length(0x7FE0, 0x0010, "OB", u32::MAX, &[]);
    for fragment in std::iter::once(&&[][..]).chain(fragments) {
        bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
        bytes.extend((fragment.len() as u32).to_le_bytes());
        bytes.extend(*fragment);
    }
    bytes.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    bytes
}

fn deflated() -> Vec<u8> {
    let image = Image { syntax: "1.2.840.10008.1.2.1.99", ..Image::new(15) }.bytes();
    // The preamble, the prefix and the group length element; then as many bytes as that says.
    let start = 144 + u32::from_le_bytes([image[140], image[141], image[142], image[143]]) as usize;
    let mut encoder = flate2::write::DeflateEncoder::new(image[..start].to_vec(), flate2::Compression::default());
    let written = encoder.write_all(&image[start..]).and_then(|()| encoder.finish());
    let mut bytes = written.unwrap_or_default();
    bytes.truncate(bytes.len() - 40);
    bytes
}

fn main() -> std::io::Result<()> {
    let out = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "fixtures/bad/dicom".into()));
    std::fs::create_dir_all(&out)?;
    let window = |center: &[u8], width: &[u8]| [element(0x0028, 0x1050, "DS", center), element(0x0028, 0x1051, "DS", width)].concat();
    let rescale = |slope: &[u8]| [element(0x0028, 0x1052, "DS", b"0"), element(0x0028, 0x1053, "DS", slope)].concat();
    // RLE that says 2 billion segments: a reader that believes it allocates 8 GB.
    let segments: Vec<u8> = std::iter::once(0x7FFF_FFFFu32).chain([0; 15]).flat_map(u32::to_le_bytes).collect();
    // A JPEG 2000 codestream whose SIZ says 4 billion x 4 billion.
    let siz: Vec<u8> = [&[0xFF, 0x4F, 0xFF, 0x51, 0x00, 0x29, 0x00, 0x00][..], &[0xFF; 8], &[0; 24], &[0, 1, 7, 1, 1]].concat();
    // A JPEG whose frame header says 65535 x 65535.
    let sof: Vec<u8> = [&[0xFF, 0xD8, 0xFF, 0xC0, 0x00, 0x0B, 0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x01, 0x11, 0x00][..], &[0; 64]].concat();
    let nested: Vec<u8> = (0..200)
        .flat_map(|_| [with_length(0x0028, 0x3000, "SQ", u32::MAX, &[]), vec![0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]].concat())
        .collect();
    let whole = Image::new(1).bytes();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("truncated.dcm", whole[..whole.len() - 50].to_vec()),
        ("truncated-header.dcm", Image::new(2).bytes()[..420].to_vec()),
        ("no-pixel-data.dcm", Image { pixels: vec![], ..Image::new(3) }.bytes()),
        ("absurd-dimensions.dcm", Image { rows: 65_535, columns: 65_535, frames: "10000", ..Image::new(4) }.bytes()),
        ("absurd-frames.dcm", Image { frames: "2147483647", ..Image::new(5) }.bytes()),
        ("zero-rows.dcm", Image { rows: 0, ..Image::new(6) }.bytes()),
        ("not-dicom.dcm", b"patient,image\n1,one.png\n".to_vec()),
        ("empty.dcm", vec![]),
        ("nan-window.dcm", Image { more: window(b"NaN", b"nan"), ..Image::new(7) }.bytes()),
        ("narrow-window.dcm", Image { more: window(b"32", b"0.25"), ..Image::new(8) }.bytes()),
        ("zero-slope.dcm", Image { more: rescale(b"0"), ..Image::new(9) }.bytes()),
        ("nan-slope.dcm", Image { more: rescale(b"NaN"), ..Image::new(10) }.bytes()),
        ("zero-dates.dcm", Image { date: "00000000", ..Image::new(11) }.bytes()),
        ("wrong-length.dcm", Image { more: with_length(0x0029, 0x1010, "UN", 0xFFFF_FFF0, &[0; 8]), ..Image::new(12) }.bytes()),
        ("nested-sequences.dcm", Image { more: nested, ..Image::new(13) }.bytes()),
        ("unknown-syntax.dcm", Image { syntax: "1.2.840.10008.1.2.4.999", ..Image::new(14) }.bytes()),
        ("video-syntax.dcm", Image { syntax: "1.2.840.10008.1.2.4.102", pixels: encapsulated(&[&[0; 16]]), ..Image::new(16) }.bytes()),
        ("deflate-cut.dcm", deflated()),
        ("rle-segments.dcm", Image { syntax: "1.2.840.10008.1.2.5", pixels: encapsulated(&[&segments]), ..Image::new(17) }.bytes()),
        ("jpeg2000-size.dcm", Image { syntax: "1.2.840.10008.1.2.4.90", pixels: encapsulated(&[&siz]), ..Image::new(18) }.bytes()),
        ("jpeg-size.dcm", Image { syntax: "1.2.840.10008.1.2.4.50", pixels: encapsulated(&[&sof]), ..Image::new(19) }.bytes()),
        (
            "jpeg-garbage.dcm",
            Image { syntax: "1.2.840.10008.1.2.4.70", pixels: encapsulated(&[&[0xFF, 0xD8, 1, 2, 3, 4]]), ..Image::new(20) }.bytes(),
        ),
        ("no-fragments.dcm", Image { syntax: "1.2.840.10008.1.2.5", pixels: encapsulated(&[]), ..Image::new(21) }.bytes()),
        ("not-encapsulated.dcm", Image { syntax: "1.2.840.10008.1.2.5", ..Image::new(22) }.bytes()),
    ];
    for (name, bytes) in files {
        std::fs::write(out.join(name), bytes)?;
    }
    Ok(())
}
