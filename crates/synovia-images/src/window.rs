//! Which grey values are shown: as the file says, a window by name or numbers, or the middle of the image's own values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How quantities (Hounsfield units, for a CT) become grey in `[0, 1]`; colour images have none.
///
/// As text, in a pipeline and in a model's metadata: `file`; a name such as `lung`; `CENTER/WIDTH` such as `40/400`;
/// percentiles such as `1%-99%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Window {
    /// The file's VOI look-up table or window, else the range of the image.
    #[default]
    File,
    /// From `center - width / 2` to `center + width / 2` in the quantity's unit (PS3.3 §C.11.2.1.2.1).
    Fixed {
        /// The quantity that becomes mid-grey.
        center: f64,
        /// Quantities from black to white; at least 1.
        width: f64,
    },
    /// From one percentile of the image's quantities to another, padding left out, by nearest rank.
    Percentiles {
        /// Becomes black.
        low: f64,
        /// Becomes white.
        high: f64,
    },
}

/// Center and width in Hounsfield units, as radiology's textbooks have them.
const NAMED: [(&str, f64, f64); 9] = [
    ("lung", -600.0, 1500.0),
    ("bone", 400.0, 1800.0),
    ("soft tissue", 40.0, 400.0),
    ("brain", 40.0, 80.0),
    ("mediastinum", 50.0, 350.0),
    ("abdomen", 60.0, 400.0),
    ("liver", 30.0, 150.0),
    ("subdural", 75.0, 215.0),
    ("stroke", 40.0, 40.0),
];

/// A text that is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a window is file, lung, bone, soft tissue, brain, mediastinum, abdomen, liver, subdural, stroke, CENTER/WIDTH (as 40/400, width at least 1) or percentiles (as 1%-99%)"
)]
pub struct WindowError;

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        if text == "file" {
            return Ok(Self::File);
        }
        if let Some(&(_, center, width)) = NAMED.iter().find(|(name, ..)| *name == text) {
            return Ok(Self::Fixed { center, width });
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite()).ok_or(WindowError);
        if let Some((center, width)) = text.split_once('/') {
            let (center, width) = (number(center)?, number(width)?);
            return if width >= 1.0 { Ok(Self::Fixed { center, width }) } else { Err(WindowError) };
        }
        let (low, high) = text.strip_suffix('%').and_then(|text| text.split_once("%-")).ok_or(WindowError)?;
        let (low, high) = (number(low)?, number(high)?);
        if 0.0 <= low && low < high && high <= 100.0 { Ok(Self::Percentiles { low, high }) } else { Err(WindowError) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::File => f.write_str("file"),
            Self::Fixed { center, width } => match NAMED.iter().find(|known| (known.1, known.2) == (center, width)) {
                Some((name, ..)) => f.write_str(name),
                None => write!(f, "{center}/{width}"),
            },
            Self::Percentiles { low, high } => write!(f, "{low}%-{high}%"),
        }
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        for text in ["file", "lung", "soft tissue", "40/123.5", "-600/1", "1%-99%", "0%-99.5%"] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.to_string(), text);
        }
        assert_eq!("-600/1500".parse(), Ok(Window::Fixed { center: -600.0, width: 1500.0 }));
        for text in ["", "lungs", "40", "40/0.5", "nan/400", "5%-5%", "90%-10%", "-1%-50%", "1%-101%", "1-99", "inf/2"] {
            assert_eq!(text.parse::<Window>(), Err(WindowError), "{text}");
        }
    }
}
