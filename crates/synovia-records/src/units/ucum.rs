//! A compact subset of UCUM (case sensitive form, <https://ucum.org/ucum>): enough for laboratory results and vital signs.

/// Base dimensions: length, mass, time, temperature, amount, equivalents, arbitrary enzyme or international units.
const N_DIMENSIONS: usize = 7;
const AMOUNT: usize = 4;
const EQUIVALENT: usize = 5;
const MASS: usize = 1;

/// A unit as a number of base units (m, g, s, K, mol, eq, U).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    /// Size in base units.
    factor: f64,
    /// Added to the number before it is multiplied (°C, °F).
    offset: f64,
    /// Powers of the base units.
    dimensions: [i32; N_DIMENSIONS],
}

/// A unit, whether it takes prefixes, its factor and its dimensions.
const ATOMS: &[(&str, bool, f64, [i32; N_DIMENSIONS])] = &[
    ("m", true, 1.0, [1, 0, 0, 0, 0, 0, 0]),
    ("g", true, 1.0, [0, 1, 0, 0, 0, 0, 0]),
    ("s", true, 1.0, [0, 0, 1, 0, 0, 0, 0]),
    ("K", true, 1.0, [0, 0, 0, 1, 0, 0, 0]),
    ("mol", true, 1.0, [0, 0, 0, 0, 1, 0, 0]),
    ("eq", true, 1.0, [0, 0, 0, 0, 0, 1, 0]),
    // Laboratories use U and [IU] of an enzyme alike; UCUM keeps [IU] apart as arbitrary.
    ("U", true, 1.0, [0, 0, 0, 0, 0, 0, 1]),
    ("[IU]", true, 1.0, [0, 0, 0, 0, 0, 0, 1]),
    ("[iU]", true, 1.0, [0, 0, 0, 0, 0, 0, 1]),
    // 1 kat = 1 mol/s, 1 U = 1 µmol/min.
    ("kat", true, 6e7, [0, 0, 0, 0, 0, 0, 1]),
    ("L", true, 1e-3, [3, 0, 0, 0, 0, 0, 0]),
    ("l", true, 1e-3, [3, 0, 0, 0, 0, 0, 0]),
    ("Pa", true, 1e3, [-1, 1, -2, 0, 0, 0, 0]),
    ("bar", true, 1e8, [-1, 1, -2, 0, 0, 0, 0]),
    ("N", true, 1e3, [1, 1, -2, 0, 0, 0, 0]),
    ("J", true, 1e3, [2, 1, -2, 0, 0, 0, 0]),
    ("cal", true, 4184.0, [2, 1, -2, 0, 0, 0, 0]),
    ("Hz", true, 1.0, [0, 0, -1, 0, 0, 0, 0]),
    ("m[Hg]", true, 133_322_000.0, [-1, 1, -2, 0, 0, 0, 0]),
    ("m[H2O]", true, 9_806_650.0, [-1, 1, -2, 0, 0, 0, 0]),
    ("osm", true, 1.0, [0, 0, 0, 0, 1, 0, 0]),
    ("min", false, 60.0, [0, 0, 1, 0, 0, 0, 0]),
    ("h", false, 3600.0, [0, 0, 1, 0, 0, 0, 0]),
    ("d", false, 86_400.0, [0, 0, 1, 0, 0, 0, 0]),
    ("wk", false, 604_800.0, [0, 0, 1, 0, 0, 0, 0]),
    ("mo", false, 2_629_800.0, [0, 0, 1, 0, 0, 0, 0]),
    ("a", false, 31_557_600.0, [0, 0, 1, 0, 0, 0, 0]),
    ("[lb_av]", false, 453.592_37, [0, 1, 0, 0, 0, 0, 0]),
    ("[oz_av]", false, 28.349_523_125, [0, 1, 0, 0, 0, 0, 0]),
    ("[in_i]", false, 0.0254, [1, 0, 0, 0, 0, 0, 0]),
    ("[in_us]", false, 0.025_400_050_800_101_6, [1, 0, 0, 0, 0, 0, 0]),
    ("[ft_i]", false, 0.3048, [1, 0, 0, 0, 0, 0, 0]),
    ("t", true, 1e6, [0, 1, 0, 0, 0, 0, 0]),
    ("%", false, 1e-2, [0; N_DIMENSIONS]),
    ("[ppth]", false, 1e-3, [0; N_DIMENSIONS]),
    ("[ppm]", false, 1e-6, [0; N_DIMENSIONS]),
    ("[ppb]", false, 1e-9, [0; N_DIMENSIONS]),
    ("[pH]", false, 1.0, [0; N_DIMENSIONS]),
];

const PREFIXES: &[(&str, f64)] = &[
    ("da", 1e1),
    ("h", 1e2),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("d", 1e-1),
    ("c", 1e-2),
    ("m", 1e-3),
    ("u", 1e-6),
    ("n", 1e-9),
    ("p", 1e-12),
    ("f", 1e-15),
];

/// Ways of writing that are not UCUM but that charts are full of.
const SPELLINGS: &[(&str, &str)] = &[
    ("mmHg", "mm[Hg]"),
    ("°C", "Cel"),
    ("degC", "Cel"),
    ("C", "Cel"),
    ("°F", "[degF]"),
    ("degF", "[degF]"),
    ("F", "[degF]"),
    ("lb", "[lb_av]"),
    ("lbs", "[lb_av]"),
    ("in", "[in_i]"),
    ("inch", "[in_i]"),
    ("inches", "[in_i]"),
    ("bpm", "/min"),
    ("beats/min", "/min"),
    ("breaths/min", "/min"),
    ("K/uL", "10*3/uL"),
    ("M/uL", "10*6/uL"),
    ("x10E3/uL", "10*3/uL"),
    ("x10E6/uL", "10*6/uL"),
    ("10E3/uL", "10*3/uL"),
    ("10E6/uL", "10*6/uL"),
    ("10^9/L", "10*9/L"),
    ("mcg/L", "ug/L"),
    ("mcg/mL", "ug/mL"),
    ("mcg/dL", "ug/dL"),
    ("IU/L", "[IU]/L"),
    ("IU/mL", "[IU]/mL"),
    ("mIU/L", "m[IU]/L"),
    ("uIU/mL", "u[IU]/mL"),
    ("mEq/L", "meq/L"),
    ("years", "a"),
    ("percent", "%"),
    ("(score)", "{score}"),
    ("mm/hr", "mm/h"),
    ("kg/m^2", "kg/m2"),
    ("kg/m²", "kg/m2"),
    ("mL/min/1.73m2", "mL/min/{1.73_m2}"),
    ("mL/min/1.73 m2", "mL/min/{1.73_m2}"),
    ("mL/min/1.73m²", "mL/min/{1.73_m2}"),
];

/// Deepest nesting of parentheses, and largest power, that is a unit anyone writes.
const MAX_DEPTH: usize = 4;
const MAX_POWER: i32 = 15;

impl Unit {
    const ONE: Self = Self { factor: 1.0, offset: 0.0, dimensions: [0; N_DIMENSIONS] };

    /// Reads a unit; `None` when it is not one of the subset.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // Micro is written with either of two Greek letters as well.
        let plain = text.replace(['µ', 'μ'], "u");
        let text = SPELLINGS.iter().find(|(from, _)| *from == plain).map_or(plain.as_str(), |(_, to)| to);
        // UCUM §4.5: special units stand alone.
        match text {
            "" => return None,
            "Cel" => return Some(Self { factor: 1.0, offset: 273.15, dimensions: [0, 0, 0, 1, 0, 0, 0] }),
            "[degF]" => return Some(Self { factor: 5.0 / 9.0, offset: 459.67, dimensions: [0, 0, 0, 1, 0, 0, 0] }),
            _ => {}
        }
        let mut parser = Parser { rest: text };
        let unit = parser.term(0)?;
        let sound = parser.rest.is_empty() && unit.factor.is_finite() && unit.factor > 0.0;
        sound.then_some(unit)
    }

    fn power(self, n: i32) -> Self {
        Self { factor: self.factor.powi(n), offset: 0.0, dimensions: self.dimensions.map(|d| d * n) }
    }

    fn times(self, other: Self) -> Self {
        let mut dimensions = self.dimensions;
        dimensions.iter_mut().zip(other.dimensions).for_each(|(a, b)| *a += b);
        Self { factor: self.factor * other.factor, offset: 0.0, dimensions }
    }

    /// Whether a number means the same in this unit and in `text`.
    pub(crate) fn same_scale(self, text: &str) -> bool {
        Self::parse(text).is_some_and(|other| {
            other.dimensions == self.dimensions && (other.factor / self.factor - 1.0).abs() < 1e-9 && other.offset == self.offset
        })
    }

    /// `value` of this unit as a number of `to`. `molar_mass` (g/mol) lets amounts become masses and back; `monovalent` lets
    /// equivalents be moles.
    pub(crate) fn convert(mut self, value: f64, mut to: Self, molar_mass: Option<f64>, monovalent: bool) -> Option<f64> {
        if monovalent {
            for unit in [&mut self, &mut to] {
                unit.dimensions[AMOUNT] += unit.dimensions[EQUIVALENT];
                unit.dimensions[EQUIVALENT] = 0;
            }
        }
        if let (Some(molar_mass), true) = (molar_mass, self.dimensions != to.dimensions) {
            let moles = self.dimensions[AMOUNT] - to.dimensions[AMOUNT];
            self.factor *= molar_mass.powi(moles);
            self.dimensions[AMOUNT] -= moles;
            self.dimensions[MASS] += moles;
        }
        (self.dimensions == to.dimensions).then(|| (value + self.offset) * (self.factor / to.factor) - to.offset)
    }
}

/// Recursive descent over UCUM §2 (EBNF), less what no laboratory writes.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, byte: char) -> bool {
        self.rest.strip_prefix(byte).map(|rest| self.rest = rest).is_some()
    }

    /// `component ((“.” | “/”) component)*`, with a leading `/` allowed.
    fn term(&mut self, depth: usize) -> Option<Unit> {
        let mut unit = if self.eat('/') { self.component(depth)?.power(-1) } else { self.component(depth)? };
        loop {
            unit = if self.eat('.') {
                unit.times(self.component(depth)?)
            } else if self.eat('/') {
                unit.times(self.component(depth)?.power(-1))
            } else {
                return Some(unit);
            };
        }
    }

    fn annotation(&mut self) -> Option<bool> {
        if !self.rest.starts_with('{') {
            return Some(false);
        }
        let end = self.rest.find('}')?;
        self.rest = &self.rest[end + 1..];
        Some(true)
    }

    fn component(&mut self, depth: usize) -> Option<Unit> {
        if self.annotation()? {
            return Some(Unit::ONE);
        }
        if self.eat('(') {
            let unit = (depth < MAX_DEPTH).then(|| self.term(depth + 1)).flatten()?;
            return self.eat(')').then_some(unit);
        }
        let unit = if let Some(rest) = self.rest.strip_prefix("10*").or_else(|| self.rest.strip_prefix("10^")) {
            self.rest = rest;
            let power = self.exponent()?;
            Unit { factor: 10f64.powi(power), ..Unit::ONE }
        } else if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let number: u32 = self.rest[..end].parse().ok()?;
            self.rest = &self.rest[end..];
            self.whole()?;
            Unit { factor: f64::from(number), ..Unit::ONE }
        } else {
            let atom = self.atom()?;
            let power = self.exponent()?;
            atom.power(power)
        };
        self.annotation()?;
        Some(unit)
    }

    /// `None` where the number before goes on with a full stop and a digit: UCUM has no decimals, and `mL/min/1.73` does not mean
    /// 1 times 73.
    fn whole(&self) -> Option<()> {
        let decimal = self.rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        (!decimal).then_some(())
    }

    /// 1 where there is none.
    fn exponent(&mut self) -> Option<i32> {
        let digits = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
        let n_digits = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let end = self.rest.len() - digits.len() + n_digits;
        if end == 0 {
            return Some(1);
        }
        let power: i32 = self.rest[..end].parse().ok()?;
        self.rest = &self.rest[end..];
        self.whole()?;
        (power.abs() <= MAX_POWER).then_some(power)
    }

    /// The symbol up to the next operator, digit or annotation: an atom, or a prefix and a metric atom.
    fn atom(&mut self) -> Option<Unit> {
        let mut bracket = false;
        let end = self
            .rest
            .find(|c: char| {
                bracket = (bracket || c == '[') && c != ']';
                !bracket && (matches!(c, '.' | '/' | '(' | ')' | '{' | '-' | '+') || c.is_ascii_digit())
            })
            .unwrap_or(self.rest.len());
        let (symbol, rest) = self.rest.split_at(end);
        self.rest = rest;
        let find = |name: &str, prefixed: bool| ATOMS.iter().find(|(atom, metric, ..)| *atom == name && (*metric || !prefixed));
        let unit = |(_, _, factor, dimensions): &(&str, bool, f64, [i32; N_DIMENSIONS]), prefix: f64| Unit {
            factor: factor * prefix,
            offset: 0.0,
            dimensions: *dimensions,
        };
        // An atom by itself wins over a prefix and a shorter one: `min`, `cal`, `mo`.
        if let Some(atom) = find(symbol, false) {
            return Some(unit(atom, 1.0));
        }
        PREFIXES.iter().find_map(|(prefix, size)| find(symbol.strip_prefix(prefix)?, true).map(|atom| unit(atom, *size)))
    }
}
