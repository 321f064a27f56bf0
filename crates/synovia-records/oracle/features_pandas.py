"""An independent computation of features, with pandas, from FHIR Bundles; the numbers are checked in for the tests.

  python features_pandas.py ../shared/data/synthea oracle/synthea_features.csv

A patient is asked about at their last observation. An event is known at the later of what happened and what was recorded.
"""
import json, sys
from pathlib import Path
import numpy as np, pandas as pd

NUMBERS = ["2339-0", "29463-7", "8480-6", "6298-4", "4548-4"]
FLAGS = [("Condition", "http://snomed.info/sct", "38341003"), ("Condition", "http://snomed.info/sct", "59621000"),
         ("Condition", "http://snomed.info/sct", "44054006"), ("Condition", "http://snomed.info/sct", "444814009"),
         ("MedicationRequest", "http://www.nlm.nih.gov/research/umls/rxnorm", "314076"),
         ("Procedure", "http://snomed.info/sct", "430193006")]
WINDOWS = [365, 1825]
STATISTICS = ["last", "first", "mean", "min", "max", "slope", "count", "time_since"]

def seconds(text):
    return int(np.floor(pd.Timestamp(text).tz_convert("UTC").timestamp())) if "T" in text else None

def known(*texts):
    return max(seconds(t) for t in texts if t)

events, people = [], []
for place, path in enumerate(sorted(Path(sys.argv[1]).glob("*.json"))):
    for number, entry in enumerate(json.loads(path.read_bytes())["entry"]):
        r = entry["resource"]; kind = r["resourceType"]
        if kind == "Patient":
            people.append((r["id"], r["gender"], r["birthDate"])); continue
        if kind not in ("Observation", "Condition", "MedicationRequest", "Procedure", "DiagnosticReport", "AllergyIntolerance"): continue
        who = (r.get("subject") or r.get("patient"))["reference"].rsplit(":", 1)[-1].rsplit("/", 1)[-1]
        if kind == "Observation":
            time = known(r["effectiveDateTime"], r.get("issued"))
            for k, part in enumerate(r.get("component", []) + [r]):
                c = part["code"]["coding"][0]
                value = part.get("valueQuantity", {}).get("value")
                events.append((who, time, number, kind, c["system"], c["code"], value))
            continue
        if kind == "Condition": time = known(r["onsetDateTime"], r.get("recordedDate"))
        elif kind == "MedicationRequest": time = known(r["authoredOn"])
        elif kind == "Procedure": time = known(r.get("performedDateTime") or r["performedPeriod"].get("end") or r["performedPeriod"]["start"])
        elif kind == "DiagnosticReport": time = known(r["effectiveDateTime"], r.get("issued"))
        else: time = known(r.get("recordedDate") or r.get("onsetDateTime") or r["assertedDate"]) if (r.get("recordedDate") or r.get("onsetDateTime")) else None
        if time is None: continue
        concept = r.get("code") or r.get("medicationCodeableConcept") or {}
        coding = (concept.get("coding") or [{}])[0]
        events.append((who, time, number, kind, coding.get("system"), coding.get("code"), None))

df = pd.DataFrame(events, columns=["patient", "time", "number", "kind", "system", "code", "value"]).sort_values(["patient", "time", "number"], kind="stable")
people = pd.DataFrame(people, columns=["patient", "sex", "birth"]).set_index("patient").sort_index()
at = df[df.kind == "Observation"].groupby("patient").time.max()
rows = []
for patient, person in people.iterrows():
    if patient not in at: continue
    now = at[patient]; mine = df[(df.patient == patient) & (df.time <= now)]
    birth = pd.Timestamp(person.birth, tz="UTC").timestamp()
    row = {"patient": patient, "at": now, "age": (now - birth) / 86400 / 365.25, "female": float(person.sex == "female")}
    for code in NUMBERS:
        values = mine[(mine.kind == "Observation") & (mine.code == code) & mine.value.notna()]
        for window in WINDOWS:
            v = values[values.time > now - window * 86400]
            days = v.time.to_numpy() / 86400; x = v.value.to_numpy(dtype=float)
            some = len(v) > 0
            row |= {f"{code}/{window}/last": x[-1] if some else np.nan, f"{code}/{window}/first": x[0] if some else np.nan,
                    f"{code}/{window}/mean": x.mean() if some else np.nan, f"{code}/{window}/min": x.min() if some else np.nan,
                    f"{code}/{window}/max": x.max() if some else np.nan,
                    f"{code}/{window}/slope": np.cov(days, x)[0, 1] / np.var(days, ddof=1) if some and days[0] != days[-1] else np.nan,
                    f"{code}/{window}/count": float(len(v)), f"{code}/{window}/time_since": (now - v.time.iloc[-1]) / 86400 if some else np.nan}
    for kind, system, code in FLAGS:
        row[f"{kind}/{system}|{code}"] = float(((mine.kind == kind) & (mine.system == system) & (mine.code == code)).any())
    rows.append(row)
pd.DataFrame(rows).astype({c: "float32" for c in rows[0] if c not in ("patient", "at")}).to_csv(sys.argv[2], index=False)
