"""An answer in FHIR, as another library reads it: fhir_answer.py FILE

Bundle, RiskAssessment, Device and OperationOutcome have to be what HL7's definitions of R4B say (`fhir.resources`; none of what is used
here differs from R4). Prints the number of assessments."""

import json
import sys

from fhir.resources.R4B.bundle import Bundle

with open(sys.argv[1]) as file:
    bundle = Bundle.model_validate(json.load(file))
resources = [entry.resource for entry in bundle.entry]
risks = [resource for resource in resources if resource.get_resource_type() == "RiskAssessment"]
assert all(resource.get_resource_type() in ("RiskAssessment", "OperationOutcome") for resource in resources)
assert len({entry.fullUrl for entry in bundle.entry}) == len(resources)
# Per cent, by its definition.
assert all(0 <= prediction.probabilityDecimal <= 100 for risk in risks for prediction in risk.prediction)
print(len(risks))
