"""An answer in FHIR, as another library reads it: fhir_answer.py FILE

Bundle, RiskAssessment and Device have to be what HL7's definitions of R4B say (`fhir.resources`; none of what is used here differs from
R4). Prints the number of assessments."""

import json
import sys

from fhir.resources.R4B.bundle import Bundle

with open(sys.argv[1]) as file:
    bundle = Bundle.model_validate(json.load(file))
risks = [entry.resource for entry in bundle.entry]
assert all(risk.get_resource_type() == "RiskAssessment" for risk in risks)
assert all(0 <= prediction.probabilityDecimal <= 1 for risk in risks for prediction in risk.prediction)
print(len(risks))
