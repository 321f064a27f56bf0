//! Data types of FHIR that several resources share (R4 §2.24).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::spill::Token;

/// A string, borrowed where it has no escapes. (`Option<Cow<str>>` would be copied always.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        // Seldom is there anything to trim.
        let visible = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
        let bytes = self.0.as_bytes();
        if visible(bytes.first()) && visible(bytes.last()) { &self.0 } else { self.0.trim() }
    }
}

/// The text of an optional element; empty when absent.
pub(crate) fn text<'t>(element: Option<&'t Text<'_>>) -> &'t str {
    element.map_or("", Text::as_str)
}

/// `decimal` or `integer`. What is no finite number is kept as such, so that its rejection can name the element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Decimal {
    Finite(f64),
    NotANumber,
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl<'de> Visitor<'de> for Number {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_f64<E>(self, x: f64) -> Result<Decimal, E> {
                Ok(if x.is_finite() { Decimal::Finite(x) } else { Decimal::NotANumber })
            }
            fn visit_i64<E>(self, x: i64) -> Result<Decimal, E> {
                Ok(Decimal::Finite(x as f64))
            }
            fn visit_u64<E>(self, x: u64) -> Result<Decimal, E> {
                Ok(Decimal::Finite(x as f64))
            }
            fn visit_str<E>(self, _: &str) -> Result<Decimal, E> {
                Ok(Decimal::NotANumber)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Decimal, E> {
                Ok(Decimal::NotANumber)
            }
            fn visit_unit<E>(self) -> Result<Decimal, E> {
                Ok(Decimal::NotANumber)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decimal, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Decimal::NotANumber)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Decimal, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Decimal::NotANumber)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Coding<'a> {
    #[serde(borrow)]
    pub(crate) system: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) display: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CodeableConcept<'a> {
    #[serde(borrow)]
    pub(crate) coding: Vec<Coding<'a>>,
    #[serde(borrow)]
    pub(crate) text: Option<Text<'a>>,
}

/// Code systems that plans and labels are usually written in: of several codings the first of these is taken.
const PREFERRED: [&str; 4] =
    ["http://loinc.org", "http://snomed.info/sct", "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/icd-10-cm"];

impl Coding<'_> {
    /// The code with its system, when there is a code.
    pub(crate) fn token(&self) -> Option<Token<'_>> {
        let code = text(self.code.as_ref());
        (!code.is_empty()).then(|| Token::new(text(self.system.as_ref()), code))
    }
}

impl CodeableConcept<'_> {
    /// The code and a name, of the first coding of a preferred system, else of the first that has a code.
    pub(crate) fn token(&self) -> Option<(Token<'_>, &str)> {
        if let [only] = self.coding.as_slice() {
            return Some((only.token()?, self.name(only)));
        }
        let coded = || self.coding.iter().filter(|c| c.token().is_some());
        let preferred = PREFERRED.iter().find_map(|system| coded().find(|c| text(c.system.as_ref()) == *system));
        let coding = preferred.or_else(|| coded().next())?;
        Some((coding.token()?, self.name(coding)))
    }

    fn name<'t>(&'t self, coding: &'t Coding<'_>) -> &'t str {
        [coding.display.as_ref(), self.text.as_ref(), coding.code.as_ref()]
            .into_iter()
            .map(text)
            .find(|t| !t.is_empty())
            .unwrap_or_default()
    }

    /// Whether some coding has one of these codes.
    pub(crate) fn has(&self, codes: &[&str]) -> bool {
        self.coding.iter().any(|c| codes.contains(&text(c.code.as_ref())))
    }
}

/// For an element that is a concept in some resources and something else in others (`code` of what is contained): `None` for
/// what is no object.
pub(crate) fn concept_or_other<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CodeableConcept<'a>>, D::Error> {
    struct Concept;
    impl<'de> Visitor<'de> for Concept {
        type Value = Option<CodeableConcept<'de>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            CodeableConcept::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Concept)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reference<'a> {
    #[serde(borrow)]
    pub(crate) reference: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Period<'a> {
    #[serde(borrow)]
    pub(crate) start: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) end: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Identifier<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Option<CodeableConcept<'a>>,
    #[serde(borrow)]
    pub(crate) system: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) value: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HumanName<'a> {
    #[serde(borrow, rename = "use")]
    pub(crate) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) family: Option<Text<'a>>,
    /// Null where there is nothing but an extension (R4 §2.6.2), as where a name is masked.
    #[serde(borrow)]
    pub(crate) given: Vec<Option<Text<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Quantity<'a> {
    pub(crate) value: Option<Decimal>,
    #[serde(borrow)]
    pub(crate) unit: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Range<'a> {
    #[serde(borrow)]
    pub(crate) low: Option<Quantity<'a>>,
    #[serde(borrow)]
    pub(crate) high: Option<Quantity<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ratio<'a> {
    #[serde(borrow)]
    pub(crate) numerator: Option<Quantity<'a>>,
    #[serde(borrow)]
    pub(crate) denominator: Option<Quantity<'a>>,
}

/// A series of samples: the decimals of `data`, times `factor`, plus `origin` (R4 §2.24.0.9).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SampledData<'a> {
    #[serde(borrow)]
    pub(crate) origin: Option<Quantity<'a>>,
    pub(crate) factor: Option<Decimal>,
    pub(crate) dimensions: Option<Decimal>,
    #[serde(borrow)]
    pub(crate) data: Option<Text<'a>>,
}

/// Points in time, of which the last counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Timing<'a> {
    #[serde(borrow)]
    pub(crate) event: Vec<Option<Text<'a>>>,
}

/// Which part of FHIR a resource's type is, as far as events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Patient,
    Encounter,
    Observation,
    Condition,
    Procedure,
    MedicationRequest,
    MedicationAdministration,
    MedicationStatement,
    Medication,
    AllergyIntolerance,
    FamilyMemberHistory,
    DiagnosticReport,
    DocumentReference,
    ImagingStudy,
    Bundle,
    /// A type that holds no event that is read.
    Skipped,
    /// Not the name of a type.
    Nonsense,
}

impl Kind {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "Patient" => Self::Patient,
            "Encounter" => Self::Encounter,
            "Observation" => Self::Observation,
            "Condition" => Self::Condition,
            "Procedure" => Self::Procedure,
            "MedicationRequest" => Self::MedicationRequest,
            "MedicationAdministration" => Self::MedicationAdministration,
            "MedicationStatement" => Self::MedicationStatement,
            "Medication" => Self::Medication,
            "AllergyIntolerance" => Self::AllergyIntolerance,
            "FamilyMemberHistory" => Self::FamilyMemberHistory,
            "DiagnosticReport" => Self::DiagnosticReport,
            "DocumentReference" => Self::DocumentReference,
            "ImagingStudy" => Self::ImagingStudy,
            "Bundle" => Self::Bundle,
            _ if name.len() <= 40
                && name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.bytes().all(|b| b.is_ascii_alphabetic()) =>
            {
                Self::Skipped
            }
            _ => Self::Nonsense,
        }
    }
}
