"""The operator screen: Qt only. Speaks to the engine through `station.client`, to history through `db.queries`."""
