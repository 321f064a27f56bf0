//! JPEG XL, against streams that libjxl 0.7.0 wrote (`cjxl -d 0`, and `-d 1`) of pictures that are formulas here.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::{Object, with_file};
use crate::dicom::stored_values;

const LOSSLESS: &str = "1.2.840.10008.1.2.4.110";
const LOSSY: &str = "1.2.840.10008.1.2.4.112";
const GREY_16: &str = "0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c20000000096a786c6c0a000000e36a786c63ff0a4820fc00c5850802010034034b188b152442be630c4ec61819636c6c4444448c312a767ae07f1206600076fc0760000660000680d47f0006600006c0f8144760caf0a61e850832c820830cb20edc5c5602989d628a2956a2a1d8afda9bc4821921c514534c31c514534c3110c5f5c936d42fc514534c31c514533cde993ed718312e29a698628a29a678ed6f1d3f001797b0177c618529a698628a59fcb0fd8bbb38243bf64c4cfb428a29a6781d3f001707389fc2f5eb077321003698626cbfc9f3e22e2e28c6e58aa2c79e894931b83ac514534c31c56904";
const RGB: &str = "ff0a482010505c0808020100e4014b2836469fae14144c800235628c2d62144d0a638c31863146c58b315e8c31121d40748d0906d88994cc7090d238514a637c29e570273552badee350f8ba980004929e522e0e89e394c613c44b4a90583d713e41def4f5cee396b79f7ae3df1f0821d37f841042128f28211d484085f22f9b4d870c0b2670b6";
const RGB_LOSSY: &str = "ff0a482090505c0800128802009c025de5120000152aa38c1bbc9cebf9f24387c5b48deb0c6db56d6149a2c8383649277048122b4079bbd94c80bca9b022e6738f5e3cf366fd57ea5b67aa8f0ba48a4c63001552200fb05bf54e77a72b15e3c5c88bfa5f003098182397c9bafb62d723fc3c65bd6019aa2fe1477b6bfb46f2c6b5dc377ed6da553f8706f23d2d8db2796ece94220b4aac63a9439cde867e7baeed8bff0d56f8d0f4c22c24edf0a4fe1870db09001021";
/// What `djxl` makes of it.
const RGB_LOSSY_DECODED: &str = "0400000f0300200700350a004d0a006707007e04008f05009f0c01b20809ca0010db0015091202141504251906381a054f1a006719007c18008c1a039f1d16b21c1bc9181fda12210a2e111730132932153d32145331116830127c31188b32209f342fb33434ca3438db333a004b17134d1b294d1e3f4d21554b23694a297c4c328a4d3ba04d48b44d4fcb4e55db4e5a0064090d651326661e3d652753633168643c7a6649886753a0655fb36569cb6675db667e027b00107c00257d1b3b7c2e517b3e657c4f777e5f85816b9f7e77b37e86cb7e98db7ea51494001995002696253a953d509451649465759777849a849e9891b498a3cd97bbde96cd1eac001fad0029ad2f3bac4950aa5f64aa7575ad8984af979eaea7b4aebfcdadd3deadd721c60026c70031c81543c73d56c65b69c67878c89185c9a2a0c9baaacae2c5c8e5d2cc1706e01813e12b27e2423fe15b56e0766be0927ae2ab89e4bda5e4d8afe5f4cfdd49d7e100";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|k| u8::from_str_radix(&hex[2 * k..2 * k + 2], 16).unwrap()).collect()
}

/// The largest difference of what is read from what `expected` says of pixel `x`, `y` and sample; or the reason of a rejection.
fn difference(
    object: Object,
    syntax: &str,
    stream: &[u8],
    samples: usize,
    expected: impl Fn(usize, usize, usize) -> u32,
) -> Result<f64, String> {
    let object = object.size(10, 12).fragments(vec![0], vec![stream.to_vec()]);
    let values = with_file(&object.encoded(syntax), stored_values).map_err(|fault| fault.to_string())?;
    assert_eq!(values.len(), 120 * samples);
    let of = |k: usize| f64::from(expected(k / samples % 12, k / samples / 12, k % samples));
    Ok(values.iter().enumerate().map(|(k, value)| (value - of(k)).abs()).fold(0.0, f64::max))
}

fn colour() -> Object {
    Object::new().colour("RGB")
}

#[test]
fn values_are_those_of_libjxl() {
    let sixteen = |x: usize, y: usize, _| ((x * 4099 + y * 257 * 23) % 65536) as u32;
    let rgb = |x: usize, y: usize, c: usize| [x * 20, y * 25, x * y * 3 % 256][c] as u32;
    assert_eq!(difference(Object::new().bits(16, 16), LOSSLESS, &bytes(GREY_16), 1, sixteen), Ok(0.0));
    assert_eq!(difference(colour(), LOSSLESS, &bytes(RGB), 3, rgb), Ok(0.0));
    let decoded = bytes(RGB_LOSSY_DECODED);
    let lossy = difference(colour(), LOSSY, &bytes(RGB_LOSSY), 3, |x, y, c| decoded[(y * 12 + x) * 3 + c].into());
    assert!(lossy.as_ref().is_ok_and(|worst| *worst <= 1.0), "{lossy:?}");
}

#[test]
fn another_size_and_damage() {
    let stream = bytes(RGB);
    let object = colour().size(10, 13).put(tags::NUMBER_OF_FRAMES, VR::IS, "1".into()).fragments(vec![0], vec![stream.clone()]);
    let fault = with_file(&object.encoded(LOSSLESS), stored_values).unwrap_err();
    assert!(fault.to_string().contains("stream is 12 x 10 x 3, the header says 13 x 10 x 3"), "{fault}");
    for cut in 0..stream.len() {
        // What is cut off is an error or, near its end, a picture of which a part is missing: never a panic.
        let _ = difference(colour(), LOSSLESS, &stream[..cut], 3, |_, _, _| 0);
    }
    for at in 0..stream.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut stream = stream.clone();
            stream[at] ^= flip;
            let _ = difference(colour(), LOSSLESS, &stream, 3, |_, _, _| 0);
        }
    }
}
