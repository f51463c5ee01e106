"""What clients may send: ids, names, payloads. Everything is checked here, before anything is changed."""

from collections.abc import Sequence

from durabletask_sql.errors import InvalidArgumentError
from durabletask_sql.ids import is_entity
from durabletask_sql.model.entities import is_entity_id
from durabletask_sql.settings import Limits


def check_instance_id(instance_id: str, limits: Limits) -> str:
    """Return an instance id of an existing or future instance. Raises InvalidArgumentError."""
    if not instance_id:
        message = "the instance id is empty: name an instance"
        raise InvalidArgumentError(message)
    if len(instance_id) > limits.instance_id:
        message = (f"the instance id {instance_id[:40]!r}... has {len(instance_id)} characters: at most "
                   f"{limits.instance_id} are allowed")
        raise InvalidArgumentError(message)
    _check_characters(instance_id, "instance id")
    return instance_id


def check_new_instance_id(instance_id: str, limits: Limits) -> str:
    """Return the id of an instance to create; '@' at its beginning means an entity. Raises InvalidArgumentError."""
    if is_entity(instance_id):
        message = f"the instance id {instance_id!r} begins with '@', which is reserved for entities: choose another id"
        raise InvalidArgumentError(message)
    return check_instance_id(instance_id, limits)


def check_batch(instance_ids: Sequence[str], limits: Limits) -> list[str]:
    """Return the ids of a batch, each once, in their order. Raises InvalidArgumentError for one that cannot be taken."""
    if len(instance_ids) > limits.batch:
        message = f"the batch has {len(instance_ids)} instance ids: at most {limits.batch} are allowed, send several"
        raise InvalidArgumentError(message)
    return list(dict.fromkeys(check_instance_id(instance_id, limits) for instance_id in instance_ids))


def check_entity_id(entity_id: str, limits: Limits) -> str:
    """Return the id of an entity, "@name@key". Raises InvalidArgumentError."""
    if len(entity_id) > limits.entity_id:
        message = (f"the entity id {entity_id[:40]!r}... is over the length limit: it has {len(entity_id)} characters, "
                   f"at most {limits.entity_id} are allowed")
        raise InvalidArgumentError(message)
    if not is_entity_id(entity_id):
        message = f"{entity_id!r} is not an entity's id: give one of the form '@name@key'"
        raise InvalidArgumentError(message)
    _check_characters(entity_id, "entity id")
    return entity_id


def check_name(name: str, what: str, limits: Limits) -> str:
    """Return a name of an orchestrator or an event. Raises InvalidArgumentError."""
    if not name:
        message = f"the {what} is empty: give a name"
        raise InvalidArgumentError(message)
    if len(name) > limits.name:
        message = f"the {what} {name[:40]!r}... has {len(name)} characters: at most {limits.name} are allowed"
        raise InvalidArgumentError(message)
    _check_characters(name, what)
    return name


def check_version(version: str | None, limits: Limits) -> str | None:
    """Return a version of an orchestrator; "" is one. Raises InvalidArgumentError."""
    return check_name(version, "version", limits) if version else version


def check_part(text: str, what: str) -> str:
    """Return the beginning of an id, a token, or an execution's id. Raises InvalidArgumentError for what is none."""
    _check_characters(text, what)
    return text


def check_payload(text: str | None, what: str, limits: Limits) -> str | None:
    """Return a payload within the limit. Raises InvalidArgumentError."""
    # A character has at most four bytes: the exact size is only needed near the limit.
    if text is not None and len(text) * 4 > limits.payload_bytes:
        size = len(text.encode())
        if size > limits.payload_bytes:
            message = (f"the {what} has {size} bytes: at most {limits.payload_bytes} are allowed; keep large data "
                       "elsewhere and pass a reference")
            raise InvalidArgumentError(message)
    return text


def _check_characters(text: str, what: str) -> None:
    if text.isprintable():
        return
    for character in text:
        if ord(character) < ord(" ") or character == "\x7f":
            message = f"the {what} {text[:40]!r} holds the control character {character!r}: leave it out"
            raise InvalidArgumentError(message)
