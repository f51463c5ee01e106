"""What the names, versions and ids in workers' answers must be so that a database can hold them. Each says why not."""

from durabletask_sql.model.entities import is_entity_id

# A database's index holds no longer key; ids of children of children grow with each level.
LONGEST_NAME = 2_000


def flaw_of_name(name: str, what: str) -> str | None:
    """Return why a text cannot be a name or an id; None when it can."""
    return flaw_of_text(name, what) if name else f"the {what} is empty"


def flaw_of_text(text: str, what: str) -> str | None:
    """Return why a text cannot be a version, or whatever else may be empty; None when it can."""
    if "\0" in text:
        return f"the {what} {text[:40]!r} must not hold a NUL character"
    size = len(text.encode())
    if size > LONGEST_NAME:
        return f"the {what} {text[:40]!r}... has {size} bytes: at most {LONGEST_NAME} are allowed"
    return None


def flaw_of_entity_id(entity_id: str) -> str | None:
    """Return why a text cannot be the id of an entity; None when it can."""
    if not is_entity_id(entity_id):
        return f"{entity_id!r} is not an entity's id: it has the form '@name@key'"
    return flaw_of_text(entity_id, "entity id")
