//! What each element of a resource becomes.

use synovia_cohort::Sex;

use super::{PATIENT, read_text};

/// Ingests the patient `p1` and one more resource; compares events, then rejections.
#[track_caller]
fn check(resource: &str, events: &[&str], rejected: &[&str]) {
    let outcome = read_text("a.ndjson", format!("{PATIENT}\n{resource}\n").as_bytes());
    assert_eq!(outcome.events(), events);
    assert_eq!(outcome.rejected(), rejected);
    // The same resource in a Bundle, read whole and read entry by entry.
    for bundle in [
        format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{PATIENT}}},{{"resource":{resource}}}]}}"#),
        format!(r#"{{"type":"collection","entry":[{{"resource":{PATIENT}}},{{"resource":{resource}}}],"resourceType":"Bundle"}}"#),
    ] {
        let outcome = read_text("a.json", bundle.as_bytes());
        assert_eq!(outcome.events(), events);
        let rejected: Vec<String> = rejected.iter().map(|r| r.replacen("line", "entry", 1)).collect();
        assert_eq!(outcome.rejected(), rejected);
    }
}

/// An Observation of CRP with these further elements.
fn crp(elements: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","code":{{"coding":[{{"system":"http://loinc.org","code":"1988-5"}}]}},"subject":{{"reference":"Patient/p1"}},{elements}}}"#
    )
}

fn crp_at(time: &str) -> String {
    crp(&format!(r#"{time},"valueQuantity":{{"value":5,"code":"mg/L"}}"#))
}

const CRP: &str = "Observation http://loinc.org|1988-5";

#[test]
fn an_observation_is_known_when_it_could_be() {
    let at = |time: &str| format!("{time} {CRP} = 5.000000 mg/L");
    check(&crp_at(r#""effectiveDateTime":"2020-05-04T12:00:00+02:00""#), &[&at("2020-05-04T10:00:00Z")], &[]);
    // Partial dates stand for their last moment.
    check(&crp_at(r#""effectiveDateTime":"2020""#), &[&at("2020-12-31T23:59:59Z")], &[]);
    check(&crp_at(r#""effectiveDateTime":"2020-02""#), &[&at("2020-02-29T23:59:59Z")], &[]);
    check(&crp_at(r#""effectiveInstant":"2020-05-04T12:00:00Z""#), &[&at("2020-05-04T12:00:00Z")], &[]);
    check(&crp_at(r#""effectivePeriod":{"start":"2020-05-04","end":"2020-05-06T08:00:00Z"}"#), &[&at("2020-05-06T08:00:00Z")], &[]);
    check(&crp_at(r#""issued":"2020-05-04T12:00:00Z""#), &[&at("2020-05-04T12:00:00Z")], &[]);
    // Drawn in the morning, reported in the evening: known in the evening.
    check(&crp_at(r#""effectiveDateTime":"2020-05-04T08:00:00Z","issued":"2020-05-04T19:00:00Z""#), &[&at("2020-05-04T19:00:00Z")], &[]);
    // Drawn "that day", reported at ten: it was known at ten, not at midnight.
    check(&crp_at(r#""effectiveDateTime":"2020-05-04","issued":"2020-05-04T10:00:00Z""#), &[&at("2020-05-04T10:00:00Z")], &[]);
    check(&crp_at(r#""x":1"#), &[], &["line 2 Observation.effectiveDateTime: no time: when it was known can't be told"]);
}

#[test]
fn statuses_that_are_no_events() {
    for status in ["entered-in-error", "cancelled", "registered", "unknown"] {
        check(
            &crp(&format!(r#""status":"{status}","effectiveDateTime":"2020","valueQuantity":{{"value":5,"code":"mg/L"}}"#)),
            &[],
            &[&format!("line 2 Observation.status: status {status}: not an event")],
        );
    }
    for status in ["refuted", "entered-in-error"] {
        check(
            &format!(
                r#"{{"resourceType":"Condition","verificationStatus":{{"coding":[{{"code":"{status}"}}]}},"subject":{{"reference":"Patient/p1"}},"code":{{"coding":[{{"system":"s","code":"c"}}]}},"onsetDateTime":"2020"}}"#
            ),
            &[],
            &[&format!("line 2 Condition.verificationStatus: status {status}: not an event")],
        );
    }
    let request = |elements: &str| {
        format!(
            r#"{{"resourceType":"MedicationRequest","subject":{{"reference":"Patient/p1"}},"medicationCodeableConcept":{{"coding":[{{"system":"s","code":"c"}}]}},"authoredOn":"2020-05-04T00:00:00Z",{elements}}}"#
        )
    };
    check(&request(r#""status":"stopped","intent":"order""#), &["2020-05-04T00:00:00Z Medication s|c"], &[]);
    check(&request(r#""status":"draft","intent":"order""#), &[], &["line 2 MedicationRequest.status: status draft: not an event"]);
    check(&request(r#""status":"active","intent":"plan""#), &[], &["line 2 MedicationRequest.intent: status plan: not an event"]);
    check(
        &request(r#""status":"active","doNotPerform":true"#),
        &[],
        &["line 2 MedicationRequest.doNotPerform: a request not to give it: not an event"],
    );
    check(
        r#"{"resourceType":"Encounter","status":"planned","class":{"code":"AMB"},"subject":{"reference":"Patient/p1"},"period":{"start":"2020"}}"#,
        &[],
        &["line 2 Encounter.status: status planned: not an event"],
    );
    check(
        r#"{"resourceType":"Procedure","status":"not-done","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/p1"},"performedDateTime":"2020"}"#,
        &[],
        &["line 2 Procedure.status: status not-done: not an event"],
    );
}

#[test]
fn values_of_each_type() {
    let of = |value: &str| crp(&format!(r#""effectiveDateTime":"2020-05-04T10:00:00Z",{value}"#));
    let is = |value: &str| format!("2020-05-04T10:00:00Z {CRP}{value}");
    // UCUM's code, not the text beside it.
    check(&of(r#""valueQuantity":{"value":0.55,"unit":"whatever","code":"mg/dL"}"#), &[&is(" = 5.500000 mg/L")], &[]);
    check(&of(r#""valueQuantity":{"value":"5.5","code":"mg/L"}"#), &[], &["line 2 Observation.valueQuantity.value: not a finite number"]);
    check(
        &of(r#""valueCodeableConcept":{"coding":[{"system":"http://snomed.info/sct","code":"10828004"}]}"#),
        &[&is(" = http://snomed.info/sct|10828004")],
        &[],
    );
    check(&of(r#""valueBoolean":true"#), &[&is(" = |true")], &[]);
    // An integer has no unit: it is for codes that need none.
    check(
        &of(r#""valueInteger":3"#),
        &[],
        &["line 2 Observation.valueInteger: http://loinc.org|1988-5: no unit where one is needed; expected one like mg/L"],
    );
    let pain = |value: &str| of(&format!(r#""valueInteger":{value}"#)).replace("1988-5", "72514-3");
    check(&pain("3"), &["2020-05-04T10:00:00Z Observation http://loinc.org|72514-3 = 3.000000 {score}"], &[]);
    check(&pain("3").replace("http://loinc.org", "lab"), &["2020-05-04T10:00:00Z Observation lab|72514-3 = 3.000000 "], &[]);
    check(&of(r#""valueRange":{"low":{"value":4,"code":"mg/L"},"high":{"value":6,"code":"mg/L"}}"#), &[&is(" = 5.000000 mg/L")], &[]);
    check(&of(r#""valueRange":{"high":{"value":0.6,"code":"mg/dL"}}"#), &[&is(" = 6.000000 mg/L")], &[]);
    check(&of(r#""valueDateTime":"2020-05-03""#), &[&is(" = “2020-05-03”")], &[]);
    check(&of(r#""valueTime":"12:00:00""#), &[&is(" = “12:00:00”")], &[]);
    check(&of(r#""valuePeriod":{"start":"2020-05-01","end":"2020-05-03"}"#), &[&is(" = “2020-05-03”")], &[]);
    let series = |more: &str, data: &str| {
        of(&format!(r#""valueSampledData":{{"origin":{{"value":0.2,"code":"mg/dL"}},"period":1000,{more}"data":"{data}"}}"#))
    };
    // A tenth of the mean of 1, 2 and 6, and the origin: 0.5 mg/dL.
    check(&series(r#""factor":0.1,"dimensions":1,"#, "1 E 2 U L 6"), &[&is(" = 5.000000 mg/L")], &[]);
    check(&series("", "1.5"), &[&is(" = 17.000000 mg/L")], &[]);
    check(&series("", "E L"), &[], &["line 2 Observation.valueSampledData.data: no sample"]);
    check(&series("", "1 x"), &[], &["line 2 Observation.valueSampledData.data: a sample that is no number"]);
    check(&series("", "inf"), &[], &["line 2 Observation.valueSampledData.data: a sample that is no number"]);
    let several = series(r#""dimensions":2,"#, "1 2");
    check(&several, &[], &["line 2 Observation.valueSampledData.dimensions: of several dimensions: not read"]);
    check(&of(r#""valueSampledData":{"data":"1 2 3"}"#), &[], &["line 2 Observation.valueSampledData.origin: no number"]);
    let titre = of(r#""valueRatio":{"numerator":{"value":1},"denominator":{"value":128}}"#).replace("http://loinc.org", "lab");
    check(&titre, &["2020-05-04T10:00:00Z Observation lab|1988-5 = 0.007812 1"], &[]);
    check(&of(r#""valueString":"tiny \"bit\"""#), &[&is(" = “tiny \"bit\"”")], &[]);
    check(
        &of(r#""dataAbsentReason":{"coding":[{"code":"unknown"}]}"#),
        &[],
        &["line 2 Observation.dataAbsentReason: no value: the source says that it is absent"],
    );
}

#[test]
fn wrong_units_are_rejected_for_a_known_code() {
    let of = |unit: &str| crp(&format!(r#""effectiveDateTime":"2020-05-04T10:00:00Z","valueQuantity":{{"value":5{unit}}}"#));
    let reason = |what: &str| format!("line 2 Observation.valueQuantity.code: http://loinc.org|1988-5: {what}; expected one like mg/L");
    check(&of(r#","code":"mmol/L""#), &[], &[&reason("the unit measures something else (`mmol/L`)")]);
    check(&of(r#","unit":"furlong""#), &[], &[&reason("the unit is not one that is known")]);
    check(&of(""), &[], &[&reason("no unit where one is needed")]);
    // What does not look like a unit may be anything, a name too.
    check(&of(r#","unit":"Mrs. Jane Doe, 1961""#), &[], &[&reason("the unit is not one that is known")]);
}

#[test]
fn a_panel_is_its_components() {
    let component = |code: &str, value: f64, unit: &str| {
        format!(
            r#"{{"code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},"valueQuantity":{{"value":{value},"code":"{unit}"}}}}"#
        )
    };
    let panel = |parts: &str| {
        format!(
            r#"{{"resourceType":"Observation","code":{{"coding":[{{"system":"http://loinc.org","code":"85354-9"}}]}},"subject":{{"reference":"Patient/p1"}},"effectiveDateTime":"2020-05-04T10:00:00Z","component":[{parts}]}}"#
        )
    };
    check(
        &panel(&format!("{},{}", component("8480-6", 120.0, "mm[Hg]"), component("8462-4", 10.0, "kPa"))),
        &[
            "2020-05-04T10:00:00Z Observation http://loinc.org|8480-6 = 120.000000 mm[Hg]",
            "2020-05-04T10:00:00Z Observation http://loinc.org|8462-4 = 75.006376 mm[Hg]",
        ],
        &[],
    );
    check(
        &panel(&format!("{},{}", component("8480-6", 120.0, "mm[Hg]"), component("8462-4", 80.0, "kg"))),
        &["2020-05-04T10:00:00Z Observation http://loinc.org|8480-6 = 120.000000 mm[Hg]"],
        &[
            "line 2 Observation.component[1].valueQuantity.code: http://loinc.org|8462-4: the unit measures something else (`kg`); expected one like mm[Hg]",
        ],
    );
}

#[test]
fn a_condition_is_known_when_it_is_recorded() {
    let of = |times: &str| {
        format!(
            r#"{{"resourceType":"Condition","subject":{{"reference":"Patient/p1"}},"code":{{"coding":[{{"system":"s","code":"c"}}]}},{times}}}"#
        )
    };
    check(&of(r#""onsetDateTime":"2020-05-04T00:00:00Z""#), &["2020-05-04T00:00:00Z Condition s|c"], &[]);
    check(&of(r#""recordedDate":"2020-05-04T00:00:00Z""#), &["2020-05-04T00:00:00Z Condition s|c"], &[]);
    check(
        &of(r#""onsetDateTime":"2020-05-04T00:00:00Z","recordedDate":"2020-05-14T12:00:00Z""#),
        &["2020-05-14T12:00:00Z Condition s|c = 10.500000 d"],
        &[],
    );
    // It may have begun on the first of January.
    check(
        &of(r#""onsetDateTime":"2020","recordedDate":"2020-03-14T12:00:00Z""#),
        &["2020-03-14T12:00:00Z Condition s|c = 73.500000 d"],
        &[],
    );
    check(
        &of(r#""onsetDateTime":"2019","recordedDate":"2020-03-01T00:00:00Z""#),
        &["2020-03-01T00:00:00Z Condition s|c = 425.000000 d"],
        &[],
    );
    check(&of(r#""onsetAge":{"value":40}"#), &[], &["line 2 Condition.onsetDateTime: no time: when it was known can't be told"]);
    check(
        &of(r#""onsetDateTime":"2020-13-01""#),
        &[],
        &[
            "line 2 Condition.onsetDateTime: not a date that a chart can have: expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss+zz:zz",
        ],
    );
}

#[test]
fn encounters_procedures_reports() {
    check(
        r#"{"resourceType":"Encounter","status":"finished","class":{"system":"v3","code":"EMER"},"subject":{"reference":"https://h.example/fhir/Patient/p1"},"period":{"start":"2020-05-04T00:00:00Z","end":"2020-05-09"}}"#,
        &["2020-05-04T00:00:00Z Encounter v3|EMER"],
        &[],
    );
    check(
        r#"{"resourceType":"Procedure","status":"completed","code":{"coding":[{"system":"s","code":"x"}]},"subject":{"reference":"Patient/p1"},"performedPeriod":{"start":"2020-05-04","end":"2020-05-04T11:00:00Z"}}"#,
        &["2020-05-04T11:00:00Z Procedure s|x"],
        &[],
    );
    check(
        r#"{"resourceType":"DiagnosticReport","status":"final","code":{"coding":[{"code":"r"}]},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2020-05-04T08:00:00Z","issued":"2020-05-05T08:00:00Z","presentedForm":[{"contentType":"text/plain","data":"Zm9vYmFy"}],"conclusionCode":[{"coding":[{"system":"s","code":"1"}]},{"coding":[{"system":"s","code":"2"}]}]}"#,
        &["2020-05-05T08:00:00Z Report |r = “foobar”", "2020-05-05T08:00:00Z Report |r = s|1", "2020-05-05T08:00:00Z Report |r = s|2"],
        &[],
    );
}

#[test]
fn the_text_of_reports_and_documents() {
    let report = |elements: &str| {
        format!(
            r#"{{"resourceType":"DiagnosticReport","status":"final","code":{{"coding":[{{"code":"r"}}]}},"subject":{{"reference":"Patient/p1"}},"issued":"2020-05-05T08:00:00Z",{elements}}}"#
        )
    };
    let is = |words: &str| format!("2020-05-05T08:00:00Z Report |r{words}");
    // <p>foo &amp; bar</p>
    check(
        &report(r#""presentedForm":[{"contentType":"text/html; charset=utf-8","data":"PHA+Zm9vICZhbXA7IGJhcjwvcD4="}]"#),
        &[&is(" = “foo & bar”")],
        &[],
    );
    check(&report(r#""text":{"status":"generated","div":"<div><b>all</b> well</div>"}"#), &[&is(" = “all well”")], &[]);
    check(&report(r#""conclusion":"ill","text":{"status":"generated","div":"<div>ill, says the server</div>"}"#), &[&is(" = “ill”")], &[]);
    check(
        &report(r#""presentedForm":[{"contentType":"application/pdf","data":"Zm9v"}]"#),
        &[&is("")],
        &["line 2 DiagnosticReport.presentedForm: an attachment that is no text: not read"],
    );
    check(
        &report(r#""presentedForm":[{"data":"Zm9v"},{"contentType":"application/pdf"}]"#),
        &[&is("")],
        &["line 2 DiagnosticReport.presentedForm: no contentType: expected text/plain or text/html"],
    );
    check(
        &report(r#""conclusionCode":[{"text":"ill"},{"coding":[{"system":"s","code":"1"}]}]"#),
        &[&is(""), &is(" = s|1")],
        &["line 2 DiagnosticReport.conclusionCode[0]: no coding with a code"],
    );
    check(
        &report(r#""presentedForm":[{"contentType":"text/plain","url":"https://h.example/1"}]"#),
        &[&is("")],
        &["line 2 DiagnosticReport.presentedForm: a text at an address: not fetched"],
    );
    let document = |status: &str| {
        format!(
            r#"{{"resourceType":"DocumentReference","status":"{status}","type":{{"coding":[{{"system":"http://loinc.org","code":"11506-3"}}]}},"subject":{{"reference":"Patient/p1"}},"date":"2020-05-05T08:00:00Z","content":[{{"attachment":{{"contentType":"text/plain","data":"Zm9v"}}}},{{"attachment":{{"contentType":"text/plain","data":"YmFy"}}}}]}}"#
        )
    };
    check(&document("current"), &["2020-05-05T08:00:00Z Report http://loinc.org|11506-3 = “foo\nbar”"], &[]);
    check(&document("entered-in-error"), &[], &["line 2 DocumentReference.status: status entered-in-error: not an event"]);
}

#[test]
fn drugs_given_and_taken_allergies_and_relatives() {
    let of = |kind: &str, elements: &str| {
        format!(
            r#"{{"resourceType":"{kind}","subject":{{"reference":"Patient/p1"}},"medicationCodeableConcept":{{"coding":[{{"system":"rx","code":"1"}}]}},{elements}}}"#
        )
    };
    let given = r#""status":"completed","effectivePeriod":{"start":"2020-05-04T08:00:00Z","end":"2020-05-04T20:00:00Z"}"#;
    check(&of("MedicationAdministration", given), &["2020-05-04T08:00:00Z Medication rx|1"], &[]);
    check(
        &of("MedicationAdministration", r#""status":"not-done","effectiveDateTime":"2020""#),
        &[],
        &["line 2 MedicationAdministration.status: status not-done: not an event"],
    );
    check(
        &of("MedicationStatement", r#""status":"active","effectiveDateTime":"2020-01-01T00:00:00Z","dateAsserted":"2020-05-04T08:00:00Z""#),
        &["2020-05-04T08:00:00Z Medication rx|1"],
        &[],
    );
    check(
        &of("MedicationStatement", r#""status":"not-taken","effectiveDateTime":"2020""#),
        &[],
        &["line 2 MedicationStatement.status: status not-taken: not an event"],
    );
    check(
        &of("MedicationStatement", r#""status":"active","effectiveDateTime":"2020-05-04T08:00:00Z""#).replace(
            r#""medicationCodeableConcept":{"coding":[{"system":"rx","code":"1"}]}"#,
            r#""medicationReference":{"reference":"Medication/none"}"#,
        ),
        &[],
        &["line 2 MedicationStatement.medicationReference: not among the Medication resources"],
    );
    let allergy = |verification: &str| {
        format!(
            r#"{{"resourceType":"AllergyIntolerance","verificationStatus":{{"coding":[{{"code":"{verification}"}}]}},"patient":{{"reference":"Patient/p1"}},"code":{{"coding":[{{"system":"s","code":"nut"}}]}},"recordedDate":"2020-05-04T08:00:00Z"}}"#
        )
    };
    check(&allergy("confirmed"), &["2020-05-04T08:00:00Z Allergy s|nut"], &[]);
    check(&allergy("refuted"), &[], &["line 2 AllergyIntolerance.verificationStatus: status refuted: not an event"]);
    check(
        &allergy("confirmed").replace("Patient/p1", "Group/1"),
        &[],
        &["line 2 AllergyIntolerance.patient: the subject is not a patient"],
    );
    check(
        r#"{"resourceType":"FamilyMemberHistory","status":"completed","patient":{"reference":"Patient/p1"},"date":"2020-05-04T08:00:00Z","relationship":{"coding":[{"system":"v3","code":"MTH"}]},"condition":[{"code":{"coding":[{"system":"s","code":"ca"}]}},{}]}"#,
        &["2020-05-04T08:00:00Z FamilyHistory s|ca = v3|MTH"],
        &["line 2 FamilyMemberHistory.condition[1].code: no coding with a code"],
    );
}

#[test]
fn a_study_is_linked_by_its_uid() {
    let study = r#"{"resourceType":"ImagingStudy","status":"available","subject":{"reference":"Patient/p1"},"started":"2020-05-04T08:00:00Z","identifier":[{"system":"urn:dicom:uid","value":"urn:oid:1.2.3"}],"series":[{"uid":"9.9","modality":{"system":"DCM","code":"DX"}}]}"#;
    check(study, &["2020-05-04T08:00:00Z Imaging DCM|DX"], &[]);
    let outcome = read_text("a.ndjson", format!("{PATIENT}\n{study}\n{study}\n").as_bytes());
    let links = &outcome.records[0].studies;
    assert_eq!(links.len(), 1);
    assert_eq!((links[0].study_instance_uid.as_str(), links[0].started.unwrap().to_string().as_str()), ("1.2.3", "2020-05-04T08:00:00Z"));
    // By its accession number, with an exact time or without.
    let by_accession =
        study.replace(r#""system":"urn:dicom:uid","value":"urn:oid:1.2.3""#, r#""type":{"coding":[{"code":"ACSN"}]},"value":"A7""#);
    let outcome = read_text("a.ndjson", format!("{PATIENT}\n{by_accession}\n").as_bytes());
    let link = &outcome.records[0].studies[0];
    assert_eq!((link.study_instance_uid.as_str(), link.accession.as_str(), link.started.is_some()), ("", "A7", true));
    check(
        &study.replace("urn:oid:1.2.3", "something 7").replace("2020-05-04T08:00:00Z", "2020-05-04"),
        &["2020-05-04T23:59:59Z Imaging DCM|DX"],
        &[
            "line 2 ImagingStudy.identifier: no Study Instance UID (urn:oid:…), no accession number (ACSN), no exact time: no image can be linked",
        ],
    );
    let on_a_day = by_accession.replace("2020-05-04T08:00:00Z", "2020-05-04");
    check(&on_a_day, &["2020-05-04T23:59:59Z Imaging DCM|DX"], &[]);
    let outcome = read_text("a.ndjson", format!("{PATIENT}\n{on_a_day}\n").as_bytes());
    let link = &outcome.records[0].studies[0];
    assert_eq!((link.study_instance_uid.as_str(), link.accession.as_str(), link.started), ("", "A7", None));
}

#[test]
fn a_medication_may_be_referred_to() {
    let request = |reference: &str, more: &str| {
        format!(
            r#"{{"resourceType":"MedicationRequest","status":"active","subject":{{"reference":"Patient/p1"}},"medicationReference":{{"reference":"{reference}"}},"authoredOn":"2020-05-04T00:00:00Z"{more}}}"#
        )
    };
    check(
        &request("#m", r#","contained":[{"resourceType":"Medication","id":"m","code":{"coding":[{"system":"rx","code":"1"}]}}]"#),
        &["2020-05-04T00:00:00Z Medication rx|1"],
        &[],
    );
    // What else is contained may have a `code` of another shape.
    check(
        &request(
            "#m",
            r#","contained":[{"resourceType":"PractitionerRole","id":"r","code":[{"coding":[{"code":"doctor"}]}]},{"id":"x","code":"y"},{"resourceType":"Medication","id":"m","code":{"coding":[{"system":"rx","code":"1"}]}}]"#,
        ),
        &["2020-05-04T00:00:00Z Medication rx|1"],
        &[],
    );
    check(&request("Medication/none", ""), &[], &["line 2 MedicationRequest.medicationReference: not among the Medication resources"]);
    // In another file, read later.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("MedicationRequest.ndjson"), request("Medication/m1", "")).unwrap();
    std::fs::write(folder.path().join("Patient.ndjson"), PATIENT).unwrap();
    std::fs::write(
        folder.path().join("XMedication.ndjson"),
        r#"{"resourceType":"Medication","id":"m1","code":{"coding":[{"system":"rx","code":"2"}]}}"#,
    )
    .unwrap();
    let outcome = super::read(folder.path());
    assert_eq!((outcome.events(), outcome.rejected()), (vec!["2020-05-04T00:00:00Z Medication rx|2".to_owned()], vec![]));
}

#[test]
fn a_patient_and_all_their_names() {
    let outcome = read_text(
        "a.ndjson",
        br#"{"id":"p9","identifier":[{"value":"MRN-9"},{"value":"p9"}],"resourceType":"Patient","gender":"male","birthDate":"1950-03","deceasedDateTime":"2021-01-02T03:04:05Z"}"#,
    );
    let patient = &outcome.records[0].patient;
    assert_eq!(patient.identifiers, ["p9", "MRN-9"]);
    assert_eq!(patient.sex, Some(Sex::Male));
    assert_eq!(patient.birth.unwrap().to_string(), "1950-03-01T00:00:00Z");
    assert_eq!(outcome.events(), ["2021-01-02T03:04:05Z Death http://snomed.info/sct|419620001"]);
}

#[test]
fn masked_names_and_times_are_null() {
    let outcome = read_text(
        "a.ndjson",
        br#"{"resourceType":"Patient","id":"p9","birthDate":null,"name":[{"family":"Doe","given":[null,"Jane"],"_given":[{"extension":[]},null]}]}"#,
    );
    assert_eq!(outcome.rejected(), Vec::<String>::new());
    assert_eq!(outcome.records[0].patient.name_digest, Some(synovia_cohort::name_digest("Doe", "Jane")));
    check(
        &crp_at(r#""effectiveTiming":{"event":["2020-05-03","2020-05-04T10:00:00Z",null]}"#),
        &[&format!("2020-05-04T10:00:00Z {CRP} = 5.000000 mg/L")],
        &[],
    );
}

#[test]
fn of_several_codings_one_with_a_code_is_taken() {
    let of = |codings: &str| {
        format!(
            r#"{{"resourceType":"Procedure","status":"completed","code":{{"coding":[{codings}]}},"subject":{{"reference":"Patient/p1"}},"performedDateTime":"2020-05-04T10:00:00Z"}}"#
        )
    };
    let (loinc, local) = (r#"{"system":"http://loinc.org","code":"1-8"}"#, r#"{"system":"s","code":"x"}"#);
    check(&of(&format!("{local},{loinc}")), &["2020-05-04T10:00:00Z Procedure http://loinc.org|1-8"], &[]);
    check(&of(&format!("{},{local}", loinc.replace("1-8", ""))), &["2020-05-04T10:00:00Z Procedure s|x"], &[]);
}

#[test]
fn a_key_that_comes_twice_in_an_entry_is_refused() {
    let entry = |more: &str| format!(r#"{{"resourceType":"Bundle","entry":[{{"resource":{PATIENT}}},{{{more}}}]}}"#);
    let observation = crp_at(r#""effectiveDateTime":"2020-05-04T10:00:00Z""#);
    for twice in [
        format!(r#""resource":{observation},"resource":{observation}"#),
        format!(r#""fullUrl":null,"fullUrl":"a","resource":{observation}"#),
    ] {
        let outcome = read_text("a.json", entry(&twice).as_bytes());
        assert_eq!(outcome.events(), Vec::<String>::new(), "{twice}");
        let rejected = outcome.rejected();
        assert!(rejected.len() == 1 && rejected[0].ends_with("not as FHIR R4 defines this element"), "{rejected:?}");
    }
}

/// A Bundle of a patient of this id, whose `fullUrl` is that of every other's, and an Observation that refers to it.
fn bundle_of(id: &str, day: u32) -> String {
    let observation = crp_at(&format!(r#""effectiveDateTime":"2020-05-{day:02}T10:00:00Z""#)).replace("Patient/p1", "urn:uuid:patient");
    format!(
        r#"{{"resourceType":"Bundle","entry":[{{"fullUrl":"urn:uuid:patient","resource":{}}},{{"resource":{observation}}}]}}"#,
        PATIENT.replace("p1", id)
    )
}

#[test]
fn a_bundles_names_hold_in_its_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.json", &bundle_of("a", 4));
    write("b.json", &bundle_of("b", 5));
    // A third file's patient whose own id is that name, and an Observation of it.
    let of_c = crp_at(r#""effectiveDateTime":"2020-05-06T10:00:00Z""#).replace("Patient/p1", "Patient/patient");
    write("c.ndjson", &format!("{}\n{of_c}\n", PATIENT.replace("p1", "patient")));
    let outcome = super::read(folder.path());
    assert_eq!(outcome.rejected(), Vec::<String>::new());
    let mut of_each: Vec<String> = outcome
        .records
        .iter()
        .map(|r| format!("{}: {}", r.id.reveal(), r.events.iter().map(super::shown).collect::<Vec<_>>().join(", ")))
        .collect();
    of_each.sort();
    let at = |id: &str, day: u32| format!("{id}: 2020-05-{day:02}T10:00:00Z {CRP} = 5.000000 mg/L");
    assert_eq!(of_each, [at("a", 4), at("b", 5), at("patient", 6)]);
    // From another file nobody is meant by it.
    std::fs::remove_file(folder.path().join("c.ndjson")).unwrap();
    write("d.ndjson", &of_c);
    assert_eq!(super::read(folder.path()).rejected(), ["line 1 Observation.subject: the subject is not among the Patient resources"]);
}

#[test]
fn a_name_of_several_patients_of_a_file_is_nobodys() {
    let lines = |ids: &[&str]| ids.iter().zip(4..).map(|(id, day)| bundle_of(id, day) + "\n").collect::<String>();
    let reason = "the subject is a fullUrl that several patients of this file have";
    let outcome = read_text("a.ndjson", lines(&["a", "b"]).as_bytes());
    assert_eq!(outcome.events(), Vec::<String>::new());
    assert_eq!(outcome.rejected(), [1, 2].map(|line| format!("line {line} Observation.subject: {reason}")));
    // Twice the same patient is one.
    assert_eq!(read_text("a.ndjson", lines(&["a", "a"]).as_bytes()).events().len(), 2);
}

#[test]
fn the_first_of_two_medications_of_one_id_is_meant() {
    let medication =
        |code: &str| format!(r#"{{"resourceType":"Medication","id":"m","code":{{"coding":[{{"system":"rx","code":"{code}"}}]}}}}"#);
    let request = r#"{"resourceType":"MedicationRequest","status":"active","subject":{"reference":"Patient/p1"},"medicationReference":{"reference":"urn:uuid:m"},"authoredOn":"2020-05-04T00:00:00Z"}"#;
    let outcome = read_text("a.ndjson", format!("{PATIENT}\n{request}\n{}\n{}\n", medication("1"), medication("2")).as_bytes());
    assert_eq!(outcome.events(), ["2020-05-04T00:00:00Z Medication rx|1"]);
    // A fullUrl is its own Bundle's.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Patient.ndjson"), PATIENT).unwrap();
    for (name, code) in [("a", "1"), ("b", "2")] {
        let medication = medication(code).replace(r#""id":"m","#, "");
        let bundle =
            format!(r#"{{"resourceType":"Bundle","entry":[{{"resource":{request}}},{{"fullUrl":"urn:uuid:m","resource":{medication}}}]}}"#);
        std::fs::write(folder.path().join(format!("{name}.json")), bundle).unwrap();
    }
    assert_eq!(super::read(folder.path()).events(), [1, 2].map(|code| format!("2020-05-04T00:00:00Z Medication rx|{code}")));
}

#[test]
fn a_bundles_own_names_for_a_patient_are_resolved() {
    // A transaction refers by fullUrl, whatever the resource's id is; the patient comes last here.
    let observation = crp_at(r#""effectiveDateTime":"2020-05-04T10:00:00Z""#).replace("Patient/p1", "urn:uuid:1111-2222");
    let by_id = crp_at(r#""effectiveDateTime":"2020-05-05T10:00:00Z""#);
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"transaction","entry":[{{"fullUrl":"urn:uuid:5","resource":{observation}}},{{"fullUrl":"urn:uuid:6","resource":{by_id}}},{{"fullUrl":"urn:uuid:1111-2222","resource":{PATIENT}}}]}}"#
    );
    let outcome = read_text("a.json", bundle.as_bytes());
    assert_eq!(outcome.rejected(), Vec::<String>::new());
    assert_eq!(outcome.records.len(), 1);
    assert_eq!(outcome.records[0].id.reveal(), "p1");
    assert_eq!(outcome.events().len(), 2);
    // Without an id the fullUrl is the patient's.
    let outcome = read_text("a.json", bundle.replace(r#""id":"p1","#, "").as_bytes());
    assert_eq!(outcome.records[0].id.reveal(), "1111-2222");
    assert_eq!(outcome.rejected(), ["entry 2 Observation.subject: the subject is not among the Patient resources"]);
}

#[test]
fn types_that_hold_no_event_are_counted_and_not_rejected() {
    let outcome = read_text(
        "a.ndjson",
        format!("{PATIENT}\n{{\"resourceType\":\"Claim\",\"type\":{{}}}}\n{{\"resourceType\":\"x y\"}}\n").as_bytes(),
    );
    assert_eq!(outcome.store.summary().skipped_types.get("Claim"), Some(&1));
    assert_eq!(outcome.rejected(), ["line 3: no resourceType of FHIR"]);
}
