//! The laboratory tests and vital signs whose unit is settled, by LOINC code.

/// A code and the unit that its numbers are kept in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// LOINC code.
    pub(crate) loinc: &'static str,
    /// Canonical unit, UCUM. One that is an annotation (`{score}`) may be left out by the source.
    pub(crate) unit: &'static str,
    /// Grams in a mole of what is measured, where it is reported both ways.
    pub(crate) molar_mass: Option<f64>,
    /// Whether an equivalent is a mole (Na⁺, K⁺, Cl⁻, HCO₃⁻).
    pub(crate) monovalent: bool,
}

impl Known {
    /// Whether this is HbA1c, whose two scales are not proportional.
    pub(crate) fn is_hba1c(self) -> bool {
        self.loinc == "4548-4" || self.loinc == "17856-6"
    }
}

const fn unit(loinc: &'static str, unit: &'static str) -> Known {
    Known { loinc, unit, molar_mass: None, monovalent: false }
}

const fn molar(loinc: &'static str, unit: &'static str, molar_mass: f64) -> Known {
    Known { loinc, unit, molar_mass: Some(molar_mass), monovalent: false }
}

const fn ion(loinc: &'static str) -> Known {
    Known { loinc, unit: "mmol/L", molar_mass: None, monovalent: true }
}

/// Sorted by code. Molar masses from the formulas; of haemoglobin that of the monomer, of urea nitrogen that of two nitrogen
/// atoms, of triglycerides that of triolein, as laboratories convert them.
pub(crate) const TABLE: &[Known] = &[
    unit("10334-1", "U/mL"),             // CA 125
    unit("10839-9", "ng/mL"),            // troponin I
    molar("13457-7", "mg/dL", 386.65),   // LDL cholesterol, calculated
    unit("1742-6", "U/L"),               // alanine aminotransferase
    molar("1751-7", "g/dL", 66_500.0),   // albumin
    unit("17856-6", "%"),                // HbA1c by HPLC
    molar("17861-6", "mg/dL", 40.078),   // calcium
    molar("18262-6", "mg/dL", 386.65),   // LDL cholesterol, direct
    molar("1834-1", "ng/mL", 69_000.0),  // alpha-fetoprotein
    molar("19123-9", "mg/dL", 24.305),   // magnesium
    unit("1920-8", "U/L"),               // aspartate aminotransferase
    ion("1963-8"),                       // bicarbonate
    molar("1975-2", "mg/dL", 584.66),    // bilirubin
    unit("1988-5", "mg/L"),              // C-reactive protein
    unit("20150-9", "L"),                // FEV1
    ion("2028-9"),                       // carbon dioxide
    unit("2039-6", "ng/mL"),             // carcinoembryonic antigen
    ion("20565-8"),                      // carbon dioxide, blood
    unit("20570-8", "%"),                // haematocrit
    ion("2069-3"),                       // chloride, blood
    ion("2075-0"),                       // chloride
    molar("2085-9", "mg/dL", 386.65),    // HDL cholesterol
    molar("2089-1", "mg/dL", 386.65),    // LDL cholesterol
    molar("2093-3", "mg/dL", 386.65),    // cholesterol
    molar("2160-0", "mg/dL", 113.12),    // creatinine
    unit("21889-1", "cm"),               // size of tumour
    unit("2276-4", "ng/mL"),             // ferritin
    unit("2324-2", "U/L"),               // gamma-glutamyltransferase
    molar("2339-0", "mg/dL", 180.156),   // glucose, blood
    molar("2345-7", "mg/dL", 180.156),   // glucose
    unit("24108-3", "U/mL"),             // CA 19-9
    molar("2524-7", "mmol/L", 90.08),    // lactate
    unit("2532-0", "U/L"),               // lactate dehydrogenase
    molar("2571-8", "mg/dL", 885.43),    // triglycerides
    unit("2708-6", "%"),                 // oxygen saturation
    molar("2777-1", "mg/dL", 30.974),    // phosphate, as phosphorus
    ion("2823-3"),                       // potassium
    unit("2857-1", "ng/mL"),             // prostate-specific antigen
    unit("2885-2", "g/dL"),              // protein
    unit("29463-7", "kg"),               // body weight
    ion("2947-0"),                       // sodium, blood
    ion("2951-2"),                       // sodium
    unit("3016-3", "m[IU]/L"),           // thyrotropin
    unit("30522-7", "mg/L"),             // C-reactive protein, high sensitivity
    molar("3084-1", "mg/dL", 168.11),    // uric acid
    unit("30934-9", "pg/mL"),            // BNP
    molar("3094-0", "mg/dL", 28.014),    // urea nitrogen
    unit("3141-9", "kg"),                // body weight, measured
    unit("33762-6", "pg/mL"),            // NT-proBNP
    unit("33914-3", "mL/min/{1.73_m2}"), // estimated glomerular filtration rate
    unit("33959-8", "ng/mL"),            // procalcitonin
    molar("38483-4", "mg/dL", 113.12),   // creatinine, blood
    unit("39156-5", "kg/m2"),            // body mass index
    molar("41653-7", "mg/dL", 180.156),  // glucose, capillary
    unit("4544-3", "%"),                 // haematocrit by automated count
    unit("4548-4", "%"),                 // HbA1c
    unit("48065-7", "ng/mL{FEU}"),       // D-dimer
    unit("48642-3", "mL/min/{1.73_m2}"), // estimated glomerular filtration rate, MDRD, not black
    molar("49765-1", "mg/dL", 40.078),   // calcium, blood
    unit("5902-2", "s"),                 // prothrombin time
    unit("59408-5", "%"),                // oxygen saturation by pulse oximetry
    unit("62238-1", "mL/min/{1.73_m2}"), // estimated glomerular filtration rate, CKD-EPI
    ion("6298-4"),                       // potassium, blood
    molar("6299-2", "mg/dL", 28.014),    // urea nitrogen, blood
    unit("6301-6", "{INR}"),             // INR
    unit("6690-2", "10*3/uL"),           // leukocytes
    unit("6768-6", "U/L"),               // alkaline phosphatase
    molar("718-7", "g/dL", 16_114.5),    // haemoglobin
    unit("72514-3", "{score}"),          // pain severity
    unit("777-3", "10*3/uL"),            // platelets
    unit("785-6", "pg"),                 // mean corpuscular haemoglobin
    unit("786-4", "g/dL"),               // mean corpuscular haemoglobin concentration
    unit("787-2", "fL"),                 // mean corpuscular volume
    unit("789-8", "10*6/uL"),            // erythrocytes
    unit("8302-2", "cm"),                // body height
    unit("8310-5", "Cel"),               // body temperature
    unit("8331-1", "Cel"),               // oral temperature
    unit("8462-4", "mm[Hg]"),            // diastolic blood pressure
    unit("8480-6", "mm[Hg]"),            // systolic blood pressure
    unit("8867-4", "/min"),              // heart rate
    unit("89579-7", "ng/L"),             // troponin I, high sensitivity
    unit("9279-1", "/min"),              // respiratory rate
    unit("98979-8", "mL/min/{1.73_m2}"), // estimated glomerular filtration rate, CKD-EPI 2021
];

/// The least and the greatest number that a living body has been seen with or could have, generously, in the canonical unit:
/// beyond it a value was mistyped, or is of another unit than it says. Sorted by code.
const LIMITS: &[(&str, f64, f64)] = &[
    ("13457-7", 0.0, 2000.0), // LDL cholesterol, mg/dL
    ("1751-7", 0.2, 10.0),    // albumin, g/dL
    ("17861-6", 1.0, 40.0),   // calcium, mg/dL
    ("18262-6", 0.0, 2000.0), // LDL cholesterol
    ("1963-8", 0.5, 100.0),   // bicarbonate, mmol/L
    ("1975-2", 0.0, 100.0),   // bilirubin, mg/dL
    ("1988-5", 0.0, 1500.0),  // C-reactive protein, mg/L
    ("2028-9", 0.5, 100.0),   // carbon dioxide
    ("20565-8", 0.5, 100.0),  // carbon dioxide, blood
    ("20570-8", 1.0, 90.0),   // haematocrit, %
    ("2069-3", 30.0, 250.0),  // chloride, blood, mmol/L
    ("2075-0", 30.0, 250.0),  // chloride
    ("2085-9", 0.0, 500.0),   // HDL cholesterol, mg/dL
    ("2089-1", 0.0, 2000.0),  // LDL cholesterol
    ("2093-3", 5.0, 3000.0),  // cholesterol
    ("2160-0", 0.01, 100.0),  // creatinine, mg/dL
    ("2339-0", 1.0, 5000.0),  // glucose, blood, mg/dL
    ("2345-7", 1.0, 5000.0),  // glucose
    ("2524-7", 0.0, 100.0),   // lactate, mmol/L
    ("2571-8", 1.0, 50000.0), // triglycerides, mg/dL
    ("2708-6", 0.0, 100.0),   // oxygen saturation, %
    ("2823-3", 0.5, 25.0),    // potassium, mmol/L
    ("29463-7", 0.1, 700.0),  // body weight, kg
    ("2947-0", 70.0, 250.0),  // sodium, blood, mmol/L
    ("2951-2", 70.0, 250.0),  // sodium
    ("3094-0", 0.0, 500.0),   // urea nitrogen, mg/dL
    ("3141-9", 0.1, 700.0),   // body weight, measured
    ("33914-3", 0.0, 400.0),  // estimated glomerular filtration rate, mL/min/{1.73_m2}
    ("38483-4", 0.01, 100.0), // creatinine, blood
    ("39156-5", 2.0, 250.0),  // body mass index, kg/m2
    ("41653-7", 1.0, 5000.0), // glucose, capillary
    ("4544-3", 1.0, 90.0),    // haematocrit
    ("4548-4", 1.0, 30.0),    // HbA1c, %
    ("48642-3", 0.0, 400.0),  // estimated glomerular filtration rate, MDRD
    ("49765-1", 1.0, 40.0),   // calcium, blood
    ("59408-5", 0.0, 100.0),  // oxygen saturation by pulse oximetry
    ("62238-1", 0.0, 400.0),  // estimated glomerular filtration rate, CKD-EPI
    ("6298-4", 0.5, 25.0),    // potassium, blood
    ("6299-2", 0.0, 500.0),   // urea nitrogen, blood
    ("6301-6", 0.1, 100.0),   // INR
    ("6690-2", 0.0, 3000.0),  // leukocytes, 10*3/uL
    ("718-7", 0.5, 30.0),     // haemoglobin, g/dL
    ("777-3", 0.0, 10000.0),  // platelets, 10*3/uL
    ("8302-2", 10.0, 300.0),  // body height, cm
    ("8310-5", 10.0, 48.0),   // body temperature, Cel
    ("8331-1", 10.0, 48.0),   // oral temperature
    ("8462-4", 0.0, 300.0),   // diastolic blood pressure, mm[Hg]
    ("8480-6", 0.0, 400.0),   // systolic blood pressure
    ("8867-4", 0.0, 400.0),   // heart rate, /min
    ("9279-1", 0.0, 200.0),   // respiratory rate
    ("98979-8", 0.0, 400.0),  // estimated glomerular filtration rate, CKD-EPI 2021
];

/// The limits of a LOINC code, where it has some.
pub(crate) fn limits(loinc: &str) -> Option<(f64, f64)> {
    LIMITS.binary_search_by(|(code, ..)| (*code).cmp(loinc)).ok().map(|k| (LIMITS[k].1, LIMITS[k].2))
}

/// Whether [`LIMITS`] can be searched by halves, and names codes of the table alone.
#[cfg(test)]
pub(crate) fn limits_are_sound() -> bool {
    LIMITS.is_sorted_by(|a, b| a.0 < b.0) && LIMITS.iter().all(|(code, low, high)| known_loinc(code).is_some() && low < high)
}

/// The entry of a code written `system|code`.
pub(crate) fn known(code: &str) -> Option<Known> {
    known_loinc(code.strip_prefix("http://loinc.org|")?)
}

/// The entry of a LOINC code.
pub(crate) fn known_loinc(loinc: &str) -> Option<Known> {
    TABLE.binary_search_by(|known| known.loinc.cmp(loinc)).ok().map(|k| TABLE[k])
}

/// The unit that numbers of a code (`http://loinc.org|2339-0`) are kept in; `None` for a code that is not in the table, whose
/// numbers keep the unit they came with.
pub fn canonical_unit(code: &str) -> Option<&'static str> {
    known(code).map(|known| known.unit)
}
