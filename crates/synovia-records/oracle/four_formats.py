"""Writes a simulated FHIR cohort again as FHIR, MEDS, OMOP and long CSV, with bad rows, and computes features with pandas.

  synovia simulate --out SIM --patients 40 --seed 11
  python four_formats.py SIM/fhir crates/synovia-records/oracle/cohort

Nothing here is shared with the reader: FHIR is read with json, times with pandas, units by the factors below. The numbers of
features.csv are what the tests hold each of the four formats against.
"""
import gzip, io, json, re, sys
from pathlib import Path
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq

source, out = Path(sys.argv[1]), Path(sys.argv[2])
SNOMED, LOINC, RXNORM = "http://snomed.info/sct", "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm"
VOCABULARY = {SNOMED: "SNOMED", LOINC: "LOINC", RXNORM: "RxNorm", "http://dicom.nema.org/resources/ontology/DCM": "DICOM"}
MISSING = "http://unknown"

def gz(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as g: g.write(text.encode())

def second(text): return int(np.floor(pd.Timestamp(text).tz_convert("UTC").timestamp())) if text else None
def known(*texts): return max(second(t) for t in texts if t)
def iso(t, sep="T"): return pd.Timestamp(t, unit="s").strftime(f"%Y-%m-%d{sep}%H:%M:%S")
def coding(concept): c = concept["coding"][0]; return c["system"], c["code"], c.get("display") or c["code"]

# FHIR, its patients renumbered: MEDS and OMOP know whole numbers only.
texts = {p.stem: p.read_text() for p in sorted(source.glob("*.ndjson"))}
number = {json.loads(l)["id"]: str(1001 + k) for k, l in enumerate(texts["Patient"].splitlines())}
texts = {kind: re.sub(r"pat-\d+", lambda m: number[m.group()], text) for kind, text in texts.items()}
# Nobody dies in the simulation of so few: two do, long after their last event.
texts["Patient"] = "".join(l[:-1] + (',"deceasedDateTime":"2022-03-01T12:30:00Z"}' if json.loads(l)["id"] in ("1005", "1033") else "}") + "\n" for l in texts["Patient"].splitlines())
resources = {kind: [json.loads(l) for l in text.splitlines()] for kind, text in texts.items()}

events, people = [], []
def add(r, time, kind, concept, **value):
    if r["subject"]["reference"].split("/")[1] not in number.values() or r.get("status") == "entered-in-error": return
    system, code, name = concept
    events.append(dict(patient=int(r["subject"]["reference"].split("/")[1]), time=time, kind=kind, system=system, code=code, name=name,
                       number=None, unit=None, answer=None, text=None, uid=None) | value)
for r in resources["Patient"]:
    people.append(dict(patient=int(r["id"]), mrn=r["identifier"][0]["value"], sex=r["gender"], birth=r["birthDate"], death=second(r.get("deceasedDateTime"))))
for r in resources["Condition"]: add(r, known(r.get("onsetDateTime"), r.get("recordedDate")), "condition", coding(r["code"]))
for r in resources["DiagnosticReport"]: add(r, known(r["effectiveDateTime"], r.get("issued")), "report", coding(r["code"]), text=r["conclusion"])
for r in resources["Encounter"]: add(r, known(r["period"]["start"]), "encounter", coding({"coding": [r["class"]]}))
for r in resources["ImagingStudy"]: add(r, known(r["started"]), "imaging", coding({"coding": r["modality"]}), uid=r["identifier"][0]["value"])
for r in resources["MedicationRequest"]: add(r, known(r["authoredOn"]), "medication", coding(r["medicationCodeableConcept"]))
for r in resources["Observation"]:
    for part in r.get("component", []) + [r]:
        q, c = part.get("valueQuantity"), part.get("valueCodeableConcept")
        value = dict(number=q["value"], unit=q.get("code") or q.get("unit") or "") if q else dict(answer=coding(c)[:2]) if c else None
        if value: add(r, known(r["effectiveDateTime"], r.get("issued")), "observation", coding(part["code"]), **value)
names = {(e["system"], e["code"]): e["name"] for e in events}

# --- FHIR
bad = {"Observation": '{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"2160-0"}]},"subject":{"reference":"Patient/1001"},"effectiveDateTime":"2015-06-01T00:00:01Z","valueQuantity":{"value":1.0,"code":"furlong"}}\n{"resourceType":"Observation",\n'}
for kind, text in texts.items(): gz(out / "fhir" / f"{kind}.ndjson.gz", bad.get(kind, "") + text)

# --- MEDS 0.4: single-precision numbers, codes as converters of MIMIC and of OMOP write them
LOCAL = {(LOINC, "2160-0"): "50912", (LOINC, "2345-7"): "50931"}
rows, codes = [], {}
def meds(patient, time, code, number=None, text=None, name=None, parents=()):
    rows.append((patient, time, code, number, text)); codes.setdefault(code, (name, list(parents)))
for p in people:
    meds(p["patient"], None, f"GENDER//{p['sex'][0].upper()}")
    meds(p["patient"], None, "IDENTIFIER", text=p["mrn"])
    meds(p["patient"], second(p["birth"] + "T00:00:00Z"), "MEDS_BIRTH")
    if p["death"]: meds(p["patient"], p["death"], "MEDS_DEATH")
WORD = {"condition": "DIAGNOSIS", "medication": "MEDICATION", "observation": "LAB", "report": "NOTE", "imaging": "IMAGING"}
for e in events:
    key, text, parents = (e["system"], e["code"]), e["text"] or e["uid"], ()
    if e["answer"]: text = f"{VOCABULARY.get(e['answer'][0])}//{e['answer'][1]}" if e["answer"][0] in VOCABULARY else "|".join(e["answer"])
    if key in LOCAL: code, parents = f"LAB//{LOCAL[key]}//{e['unit']}", [f"LOINC/{e['code']}"]
    elif e["system"] in VOCABULARY:
        code = f"{WORD[e['kind']]}//{VOCABULARY[e['system']]}//{e['code']}" + (f"//{e['unit']}" if e["number"] is not None else "")
        if e["kind"] == "medication": code = f"RxNorm/{e['code']}"
    else: code = f"{e['kind'].upper()}//{e['system']}|{e['code']}"
    meds(e["patient"], e["time"], code, e["number"], text, e["name"], parents)
order = sorted(range(len(rows)), key=lambda k: (rows[k][0], rows[k][1] is not None, rows[k][1] or 0))
rows = [rows[k] for k in order]
rows += [(1001, 253402300799, "LAB//LOINC//2160-0//mg/dL", 1.0, None), (1001, 1420070401, "LAB//LOINC//2160-0//furlong", 1.0, None), (1001, 1420070402, "LAB//LOINC//2160-0//mg/dL", float("inf"), None)]
schema = pa.schema([("subject_id", pa.int64()), ("time", pa.timestamp("us")), ("code", pa.string()), ("numeric_value", pa.float32()), ("text_value", pa.large_string())])
def shard(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(zip(*rows)); times = pa.array([None if t is None else t * 1_000_000 for t in columns[1]], pa.int64()).cast(pa.timestamp("us"))
    pq.write_table(pa.table([pa.array(columns[0], pa.int64()), times, pa.array(columns[2]), pa.array(columns[3], pa.float32()), pa.array(columns[4], pa.large_string())], schema=schema), path, compression="zstd", row_group_size=400)
shard(out / "meds/data/train/0.parquet", [r for r in rows if r[0] < 1031])
shard(out / "meds/data/held_out/0.parquet", [r for r in rows if r[0] >= 1031])
meta = out / "meds/metadata"; meta.mkdir(parents=True, exist_ok=True)
pq.write_table(pa.table({"code": pa.array(codes), "description": pa.array([v[0] for v in codes.values()], pa.string()), "parent_codes": pa.array([v[1] for v in codes.values()], pa.list_(pa.string()))}), meta / "codes.parquet", compression="zstd")
pq.write_table(pa.table({"subject_id": pa.array([p["patient"] for p in people], pa.int64()), "split": ["train" if p["patient"] < 1031 else "held_out" for p in people]}), meta / "subject_splits.parquet", compression="zstd")
(meta / "dataset.json").write_text(json.dumps({"dataset_name": "simulated", "meds_version": "0.4.0"}) + "\n")

# --- OMOP CDM 5.4: some tables as CSV, some as Parquet
concepts = {}
def concept(vocabulary, code, name=None):
    if vocabulary is None or code is None: return 0
    return concepts.setdefault((vocabulary, code), (2_000_000_001 + len(concepts), name or code))[0]
def of(system, code): return concept(VOCABULARY.get(system, system), code, names.get((system, code)))
tables = {t: [] for t in "person death visit_occurrence condition_occurrence drug_exposure measurement observation note image_occurrence".split()}
for p in people:
    y, m, d = p["birth"].split("-")
    tables["person"].append(dict(person_id=p["patient"], gender_concept_id={"female": 8532, "male": 8507, "other": 8521}[p["sex"]], year_of_birth=int(y), month_of_birth=int(m), day_of_birth=int(d), birth_datetime=None, person_source_value=p["mrn"], gender_source_value=p["sex"]))
    if p["death"]: tables["death"].append(dict(person_id=p["patient"], death_date=iso(p["death"])[:10], death_datetime=iso(p["death"], " ")))
def when(prefix, e): return {f"{prefix}_date": iso(e["time"])[:10], f"{prefix}_datetime": iso(e["time"], " ")}
for e in events:
    c, base = of(e["system"], e["code"]), dict(person_id=e["patient"])
    match e["kind"]:
        case "condition": tables["condition_occurrence"].append(base | dict(condition_concept_id=c) | when("condition_start", e))
        case "medication": tables["drug_exposure"].append(base | dict(drug_concept_id=c) | when("drug_exposure_start", e))
        case "encounter": tables["visit_occurrence"].append(base | dict(visit_concept_id=c) | when("visit_start", e))
        case "report": tables["note"].append(base | dict(note_class_concept_id=c, note_text=e["text"]) | when("note", e))
        case "imaging": tables["image_occurrence"].append(base | dict(modality_concept_id=c, image_study_uid=e["uid"].removeprefix("urn:oid:")) | when("image_occurrence", e))
        case "observation" if e["number"] is not None:
            u = concept("UCUM", e["unit"] or None)
            tables["measurement"].append(base | dict(measurement_concept_id=c, value_as_number=float(e["number"]), value_as_concept_id=0, unit_concept_id=u, unit_source_value=e["unit"]) | when("measurement", e))
        case _: tables["observation"].append(base | dict(observation_concept_id=c, value_as_concept_id=of(*e["answer"])) | when("observation", e))
tables["condition_occurrence"] += [dict(person_id=9999, condition_concept_id=1, condition_start_date="2015-01-01", condition_start_datetime=None), dict(person_id=1001, condition_concept_id=1, condition_start_date="soon", condition_start_datetime=None), dict(person_id=None, condition_concept_id=1, condition_start_date="2015-01-01", condition_start_datetime=None)]
tables["measurement"].append(dict(person_id=1001, measurement_concept_id=of(LOINC, "2160-0"), value_as_number=1.0, value_as_concept_id=0, unit_concept_id=0, unit_source_value="furlong", measurement_date="2015-06-01", measurement_datetime="2015-06-01 00:00:01"))
tables["concept"] = [dict(concept_id=i, concept_name=name, vocabulary_id=v, concept_code=c) for (v, c), (i, name) in concepts.items()]
for name, rows_ in tables.items():
    df = pd.DataFrame(rows_); path = out / "omop"; path.mkdir(parents=True, exist_ok=True)
    if name in ("measurement", "note"):
        df[f"{name}_date"] = pd.to_datetime(df[f"{name}_date"]).dt.date
        df[f"{name}_datetime"] = pd.to_datetime(df[f"{name}_datetime"])
        pq.write_table(pa.Table.from_pandas(df, preserve_index=False), path / f"{name}.parquet", compression="zstd", row_group_size=500)
    else: gz(path / f"{name.upper()}.csv.gz", df.to_csv(index=False))

# --- long CSV
lines = []
def line(patient, when="", vocabulary="", code="", name="", kind="", value="", unit="", note=""): lines.append((patient, when, vocabulary, code, name, kind, value, unit, note))
for p in people:
    line(p["patient"], p["birth"], code="birth"); line(p["patient"], code="sex", value=p["sex"]); line(p["patient"], code="identifier", value=p["mrn"])
    if p["death"]: line(p["patient"], iso(p["death"]) + "Z", code="death")
for e in events:
    value = "|".join(e["answer"]) if e["answer"] else "" if e["number"] is None else e["number"]
    line(e["patient"], iso(e["time"]) + "Z", VOCABULARY.get(e["system"], e["system"]), e["code"], e["name"], e["kind"], value, e["unit"] or "", e["text"] or e["uid"] or "")
line(1001, "2015-06-01", "LOINC", "2160-0", "", "observation", 1.0, "furlong"); line(1001, "soon", "LOINC", "2160-0", "", "observation", 1.0, "mg/dL"); line("", "2015-06-01", "LOINC", "2160-0")
text = pd.DataFrame(lines, columns="pid when vocabulary code name kind value unit note".split()).to_csv(index=False)
gz(out / "csv/events.csv.gz", text + "1001,2015-06-01\n")

# --- features with pandas: at each study, what was known by then
same = lambda x: x
UNITS = {"2039-6": {"ng/mL": same}, "1988-5": {"mg/L": same, "mg/dL": lambda x: x * 10}, "718-7": {"g/dL": same, "g/L": lambda x: x / 10},
         "2345-7": {"mg/dL": same, "mmol/L": lambda x: x * 18.0156}, "2160-0": {"mg/dL": same, "umol/L": lambda x: x * 0.011312},
         "6690-2": {"10*3/uL": same, "10*9/L": same}, "8480-6": {"mm[Hg]": same}, "39156-5": {"kg/m2": same},
         "8310-5": {"Cel": same, "[degF]": lambda x: (x - 32) / 1.8}}
def settled(code, x, unit): return UNITS[code][unit](x) if code in UNITS and unit in UNITS[code] else None
NUMBERS = ["2039-6", "1988-5", "718-7", "2345-7", "2160-0", "6690-2", "8480-6", "8310-5", "39156-5"]
STATISTICS = ["last", "first", "mean", "min", "max", "slope", "count", "time_since"]
df = pd.DataFrame(events); df["order"] = range(len(df)); df = df.sort_values(["patient", "time", "order"], kind="stable")
df["settled"] = [None if n is None or n != n else settled(c, n, u) for n, c, u in zip(df.number, df.code, df.unit)]
flags = sorted({("condition", e["system"], e["code"]) for e in events if e["kind"] == "condition"} | {("medication", e["system"], e["code"]) for e in events if e["kind"] == "medication"})
answers = sorted({(e["system"], e["code"], *e["answer"]) for e in events if e["answer"] and e["code"] == "72166-2"})
table = []
for study in df[df.kind == "imaging"].itertuples():
    person = next(p for p in people if p["patient"] == study.patient); now = study.time
    mine = df[(df.patient == study.patient) & (df.time <= now)]
    row = dict(patient=study.patient, at=now, age=(now - second(person["birth"] + "T00:00:00Z")) / 86400 / 365.25, female=float(person["sex"] == "female"))
    for code in NUMBERS:
        for window in (30, 365):
            v = mine[(mine.code == code) & mine.settled.notna() & (mine.time > now - window * 86400)]
            days, x, some = v.time.to_numpy() / 86400, v.settled.to_numpy(dtype=float), len(v) > 0
            slope = np.polyfit(days - days[0], x, 1)[0] if some and days[0] != days[-1] else np.nan
            values = [x[-1], x[0], x.mean(), x.min(), x.max(), slope, len(v), (now - v.time.iloc[-1]) / 86400] if some else [np.nan] * 6 + [0, np.nan]
            clinical = mine.kind.isin(["condition", "medication", "observation", "report"]).any()
            row |= {f"{code}/{window}/{s}": (np.nan if s == "count" and not some and not clinical else y) for s, y in zip(STATISTICS, values)}
    for kind, system, code in flags: row[f"{kind}/{system}|{code}"] = float(((mine.kind == kind) & (mine.system == system) & (mine.code == code)).any()) if clinical else np.nan
    for system, code, s, c in answers:
        given = mine[(mine.code == code) & mine.answer.notna()]
        row[f"answer/{system}|{code}={s}|{c}"] = float(given.answer.iloc[-1] == (s, c)) if len(given) else np.nan
    table.append(row)
result = pd.DataFrame(table); result = result.astype({c: "float32" for c in result if c not in ("patient", "at")})
gz(out / "features.csv.gz", result.to_csv(index=False))
