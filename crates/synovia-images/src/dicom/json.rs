//! The DICOM JSON model (PS3.18 annex F), read as it comes: of each object only the elements that are asked for.

use std::cell::Cell;
use std::fmt;
use std::io::Read;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::dataset::Dataset;
use super::instance::{INDEX_TAGS, Instance};
use super::module::PixelModule;
use crate::error::Fault;

/// Bytes of values that are kept of one object.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// An object of an answer, as far as it was asked for.
pub(crate) struct Entry(Dataset);

impl Entry {
    pub(crate) fn text(&self, tag: Tag) -> String {
        self.0.text(tag).unwrap_or_default()
    }

    /// What the index needs, from an instance's metadata alone.
    pub(crate) fn instance(&self) -> Result<Instance, Fault> {
        // Reports have neither; of an image the pixels themselves are left out of its metadata.
        if self.0.short(tags::ROWS).is_none() {
            return Err(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" });
        }
        let module = PixelModule::of(&self.0, tags::PIXEL_DATA)?;
        Instance::of(&self.0, module.frames)
    }
}

/// Calls `take` with each object of an array, with the elements of the index and `more`.
///
/// # Errors
/// What is no JSON of this form, or an object with more than 64 MiB of values.
pub(crate) fn read_json(from: impl Read, more: &[Tag], take: &mut dyn FnMut(Entry)) -> Result<(), serde_json::Error> {
    let wanted = [INDEX_TAGS, more].concat();
    let kept = Cell::new(0);
    let mut json = serde_json::Deserializer::from_reader(from);
    json.deserialize_seq(Objects { scope: Scope { wanted: &wanted, kept: &kept }, take })
}

#[derive(Clone, Copy)]
struct Scope<'a> {
    wanted: &'a [Tag],
    kept: &'a Cell<usize>,
}

impl Scope<'_> {
    fn keep<E: Error>(&self, bytes: usize) -> Result<(), E> {
        self.kept.set(self.kept.get() + bytes);
        if self.kept.get() > MAX_KEPT_BYTES { Err(E::custom("more than 64 MiB of values")) } else { Ok(()) }
    }
}

struct Objects<'a> {
    scope: Scope<'a>,
    take: &'a mut dyn FnMut(Entry),
}

impl<'de> Visitor<'de> for Objects<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(data) = seq.next_element_seed(Object(self.scope))? {
            // An object is held until something small was made of it.
            self.scope.kept.set(0);
            (self.take)(Entry(data));
        }
        Ok(())
    }
}

/// Tags to attributes.
struct Object<'a>(Scope<'a>);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Dataset;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Dataset, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Dataset;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dataset, A::Error> {
        let mut data = Dataset::default();
        while let Some(key) = map.next_key::<String>()? {
            let tag = if key.len() == 8 { u32::from_str_radix(&key, 16).ok() } else { None };
            let tag = tag.map(|number| Tag((number >> 16) as u16, number as u16));
            match tag.filter(|tag| self.0.wanted.contains(tag)) {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(tag) => map.next_value_seed(Attribute { scope: self.0, tag, data: &mut data })?,
            }
        }
        Ok(data)
    }
}

/// `{"vr": …, "Value": […]}` into a data set.
struct Attribute<'a> {
    scope: Scope<'a>,
    tag: Tag,
    data: &'a mut Dataset,
}

impl<'de> DeserializeSeed<'de> for Attribute<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Attribute<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut vr, mut values) = (String::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "vr" => vr = map.next_value()?,
                "Value" => values = map.next_value_seed(Values(self.scope))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if vr == "SQ" {
            let items = values.into_iter().filter_map(|value| if let Item::Object(item) = value { Some(item) } else { None });
            self.data.put_items(self.tag, items.collect());
        } else if vr == "US" {
            let short = |value: &Item| if let Item::Text(text) = value { text.parse::<u16>().ok() } else { None };
            self.data.put(self.tag, values.iter().filter_map(short).flat_map(u16::to_le_bytes).collect());
        } else {
            let text = |value: &Item| if let Item::Text(text) = value { text.clone() } else { String::new() };
            self.data.put(self.tag, values.iter().map(text).collect::<Vec<_>>().join("\\").into_bytes());
        }
        Ok(())
    }
}

struct Values<'a>(Scope<'a>);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<Item>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Item>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(One(self.0))? {
            values.push(value);
        }
        Ok(values)
    }
}

/// A value: text, a number as text, an item of a sequence (or a person's name, of which nothing is kept).
enum Item {
    Text(String),
    Object(Dataset),
}

struct One<'a>(Scope<'a>);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Item, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
        self.0.keep(text.len() + size_of::<Item>())?;
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Item, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Item, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Item, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<Item, E> {
        self.visit_str("")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        self.0.keep(size_of::<Item>())?;
        Object(self.0).visit_map(map).map(Item::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let mut seen = Vec::new();
        let result = read_json(json.as_bytes(), &[], &mut |entry| {
            let instance = entry.instance();
            seen.push(match instance {
                Ok(it) => format!(
                    "{} {} frame {} plane {:?}",
                    it.sop_instance_uid,
                    it.study.modality,
                    it.study.frame,
                    it.plane.map(|p| p.position_mm)
                ),
                Err(fault) => fault.to_string(),
            });
        });
        if result.is_err() {
            seen.push("not read".to_owned());
        }
        assert_eq!(seen.join("; "), expected);
    }

    const HEAD: &str = r#""0020000D":{"vr":"UI","Value":["1.2"]},"00080018":{"Value":["1.2.3"],"vr":"UI"},"00080060":{"vr":"CS","Value":["MR"]},
        "00280010":{"vr":"US","Value":[2]},"00280011":{"vr":"US","Value":[2]},"00280100":{"vr":"US","Value":[8]},
        "00280004":{"vr":"CS","Value":["MONOCHROME2"]},"7FE00010":{"vr":"OW","BulkDataURI":"x"}"#;

    #[test]
    fn as_the_standard_has_it() {
        check("[]", "");
        check(&format!("[{{{HEAD}}}]"), "1.2.3 MR frame 0 plane None");
        let placed = r#""00200032":{"vr":"DS","Value":[1.5,"-2",3]},"00200037":{"vr":"DS","Value":[1,0,0,0,1,0]}"#;
        check(&format!("[{{{HEAD},{placed}}}]"), "1.2.3 MR frame 0 plane Some([1.5, -2.0, 3.0])");
        // Two frames in space, the second lower: of an order along the normal the middle one is the upper, the first.
        let at = |z: f64| {
            format!(
                r#"{{"00209113":{{"vr":"SQ","Value":[{{"00200032":{{"vr":"DS","Value":[0,0,{z}]}}}}]}},
                "00209116":{{"vr":"SQ","Value":[{{"00200037":{{"vr":"DS","Value":[1,0,0,0,1,0]}}}}]}}}}"#
            )
        };
        let frames = format!(r#""00280008":{{"vr":"IS","Value":["2"]}},"52009230":{{"vr":"SQ","Value":[{},{}]}}"#, at(5.0), at(1.0));
        check(&format!("[{{{HEAD},{frames}}}]"), "1.2.3 MR frame 0 plane Some([0.0, 0.0, 5.0])");
        // A report; a person's name and an empty value beside it.
        check(
            r#"[{"00080018":{"vr":"UI","Value":["1"]},"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B"}]},"00100020":{"vr":"LO"}}]"#,
            "Pixel Data is missing",
        );
    }

    #[test]
    fn what_is_not_of_this_form() {
        for json in ["", "{}", "[1]", "[{\"00080018\":3}]", "[{\"00080018\":{\"vr\":\"UI\",\"Value\":\"1\"}}]", "[{", "<html>"] {
            check(json, "not read");
        }
        // One instance that was whole stays.
        check(&format!("[{{{HEAD}}},"), "1.2.3 MR frame 0 plane None; not read");
        let deep = "[{\"52009230\":{\"vr\":\"SQ\",\"Value\":".repeat(200);
        check(&deep, "not read");
    }
}
