"""The operator's screen: Qt only. Hears the engine by `station.client`, reads history by `db.queries`."""
