//! References (R4 §2.26) and the keys that patients go by.

/// What a reference to a subject says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    /// The key of a patient: a logical id, or the UUID of a Bundle's `fullUrl`.
    Key(&'a str),
    /// Not a patient, or nothing that can be followed.
    Not(&'static str),
}

/// The id after the last `Type/` of a relative or absolute reference, less a version.
fn id_of<'a>(reference: &'a str, resource_type: &str) -> Option<&'a str> {
    // The usual form first: a search for the others costs more than the rest of a small resource.
    if let Some(id) = reference.strip_prefix(resource_type).and_then(|rest| rest.strip_prefix('/'))
        && !id.is_empty()
        && memchr::memchr(b'/', id.as_bytes()).is_none()
    {
        return Some(id);
    }
    let (head, _) = reference.split_once("/_history/").unwrap_or((reference, ""));
    let (before, id) = head.rsplit_once('/')?;
    let (_, kind) = before.rsplit_once('/').unwrap_or(("", before));
    (kind == resource_type && !id.is_empty()).then_some(id)
}

/// A UUID or OID given as a URN.
fn urn(reference: &str) -> Option<&str> {
    reference.strip_prefix("urn:uuid:").or_else(|| reference.strip_prefix("urn:oid:")).filter(|id| !id.is_empty())
}

/// The patient that a `subject` points to: `Patient/x`, `https://host/fhir/Patient/x`, `urn:uuid:x`.
pub(crate) fn subject(reference: &str) -> Subject<'_> {
    match reference {
        "" => Subject::Not("no reference to a subject"),
        _ if reference.starts_with('#') => Subject::Not("the subject is a contained resource"),
        _ => match urn(reference).or_else(|| id_of(reference, "Patient")) {
            Some(key) => Subject::Key(key.trim()),
            None => Subject::Not("the subject is not a patient"),
        },
    }
}

/// The key of a Medication: contained resources (`#x`) are for the caller.
pub(crate) fn medication(reference: &str) -> Option<&str> {
    urn(reference).or_else(|| id_of(reference, "Medication"))
}

/// The key of a resource by its entry's `fullUrl`.
pub(crate) fn key_of_full_url<'a>(full_url: &'a str, resource_type: &str) -> Option<&'a str> {
    urn(full_url).or_else(|| id_of(full_url, resource_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reference: &str, expect: Option<&str>) {
        assert_eq!(if let Subject::Key(key) = subject(reference) { Some(key) } else { None }, expect, "{reference}");
    }

    #[test]
    fn forms_of_a_reference() {
        check("Patient/x1", Some("x1"));
        check("Patient/x1/_history/2", Some("x1"));
        check("https://example.org/fhir/Patient/x1", Some("x1"));
        check("urn:uuid:c757873d-ec9a-4326-a141-556f43239520", Some("c757873d-ec9a-4326-a141-556f43239520"));
        for not in ["", "#p", "Group/x1", "Patient/", "x1", "https://example.org/fhir/Device/1", "urn:uuid:", "/", "notPatient/x1"] {
            check(not, None);
        }
    }
}
