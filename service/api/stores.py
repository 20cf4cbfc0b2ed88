"""The store that the settings name. It loads no torch, so a database that cannot be used ends a start at once."""

from service.models.store import MemoryOnly, Store, StoreRefused
from service.settings import Settings, SettingsError


def create_store(settings: Settings) -> Store:
    """The database that the settings name, or none.

    Raises:
        SettingsError: where it cannot be used.
    """
    if settings.database_url is None:
        return MemoryOnly()
    # Here, because whoever needs no database need not wait for its import.
    from service.models.shared import SharedStore
    from service.models.sql import SqlStore

    url = settings.database_url.get_secret_value()
    try:
        return SharedStore(url, settings.lease_seconds) if url.startswith("postgresql") else SqlStore(url)
    except StoreRefused as error:
        raise SettingsError(f"LORA_DATABASE_URL: {error}") from None
