//! Transfer syntaxes (PS3.5 §10, PS3.6 table A-1): how the data set is encoded, and which codec holds the frames.

use super::dataset::Encoding;

/// What turns the bytes of a frame into stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// Not compressed.
    Native,
    /// Not compressed, in fragments.
    Encapsulated,
    /// A deflate stream a frame.
    DeflatedFrame,
    /// PS3.5 annex G.
    Rle,
    /// ITU-T T.81, lossy and lossless.
    Jpeg,
    /// ITU-T T.87.
    JpegLs,
    /// ITU-T T.800 and T.814 (high throughput).
    Jpeg2000,
    /// ISO/IEC 18181, JPEG XL.
    JpegXl,
    /// Known, and not read.
    None,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct TransferSyntax {
    pub(super) uid: &'static str,
    pub(super) name: &'static str,
    pub(super) encoding: Encoding,
    /// The whole data set is a deflate stream (PS3.5 §A.5).
    pub(super) deflated: bool,
    pub(super) codec: Codec,
}

const fn native(uid: &'static str, name: &'static str, encoding: Encoding) -> TransferSyntax {
    TransferSyntax { uid, name, encoding, deflated: false, codec: Codec::Native }
}

const fn with(uid: &'static str, name: &'static str, codec: Codec) -> TransferSyntax {
    TransferSyntax { uid, name, encoding: Encoding::EXPLICIT, deflated: false, codec }
}

pub(super) static IMPLICIT_LITTLE: TransferSyntax = native("1.2.840.10008.1.2", "Implicit VR Little Endian", Encoding::IMPLICIT);
pub(super) static EXPLICIT_LITTLE: TransferSyntax = native("1.2.840.10008.1.2.1", "Explicit VR Little Endian", Encoding::EXPLICIT);
pub(super) static EXPLICIT_BIG: TransferSyntax = native("1.2.840.10008.1.2.2", "Explicit VR Big Endian", Encoding::BIG_ENDIAN);

static OTHERS: [TransferSyntax; 31] = [
    TransferSyntax { deflated: true, ..native("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", Encoding::EXPLICIT) },
    with("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed", Codec::Encapsulated),
    with("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", Codec::DeflatedFrame),
    with("1.2.840.10008.1.2.5", "RLE Lossless", Codec::Rle),
    with("1.2.840.10008.1.2.4.50", "JPEG Baseline", Codec::Jpeg),
    with("1.2.840.10008.1.2.4.51", "JPEG Extended", Codec::Jpeg),
    with("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection", Codec::Jpeg),
    with("1.2.840.10008.1.2.4.55", "JPEG Full Progression", Codec::Jpeg),
    with("1.2.840.10008.1.2.4.57", "JPEG Lossless", Codec::Jpeg),
    with("1.2.840.10008.1.2.4.70", "JPEG Lossless, First-Order Prediction", Codec::Jpeg),
    with("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", Codec::JpegLs),
    with("1.2.840.10008.1.2.4.81", "JPEG-LS Near-Lossless", Codec::JpegLs),
    with("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless", Codec::Jpeg2000),
    with("1.2.840.10008.1.2.4.91", "JPEG 2000", Codec::Jpeg2000),
    with("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Lossless", Codec::None),
    with("1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2", Codec::None),
    with("1.2.840.10008.1.2.4.94", "JPIP Referenced", Codec::None),
    with("1.2.840.10008.1.2.4.95", "JPIP Referenced Deflate", Codec::None),
    with("1.2.840.10008.1.2.4.100", "MPEG2 Main Level", Codec::None),
    with("1.2.840.10008.1.2.4.101", "MPEG2 High Level", Codec::None),
    with("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264", Codec::None),
    with("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD", Codec::None),
    with("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo", Codec::None),
    with("1.2.840.10008.1.2.4.107", "HEVC/H.265", Codec::None),
    with("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10", Codec::None),
    with("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", Codec::JpegXl),
    with("1.2.840.10008.1.2.4.111", "JPEG XL Recompression", Codec::JpegXl),
    with("1.2.840.10008.1.2.4.112", "JPEG XL", Codec::JpegXl),
    with("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Lossless", Codec::Jpeg2000),
    with("1.2.840.10008.1.2.4.202", "High-Throughput JPEG 2000 RPCL Lossless", Codec::Jpeg2000),
    with("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000", Codec::Jpeg2000),
];

/// UIDs of all transfer syntaxes that are known, decodable or not.
pub(crate) fn syntax_uids() -> impl Iterator<Item = &'static str> {
    [&IMPLICIT_LITTLE, &EXPLICIT_LITTLE, &EXPLICIT_BIG].into_iter().chain(&OTHERS).map(|syntax| syntax.uid)
}

impl TransferSyntax {
    pub(super) fn of(uid: &str) -> Option<&'static Self> {
        [&IMPLICIT_LITTLE, &EXPLICIT_LITTLE, &EXPLICIT_BIG].into_iter().chain(&OTHERS).find(|syntax| syntax.uid == uid)
    }
}
