"""How Alembic reaches the database: through the engine that the store has made."""

from alembic import context

from service.models.tables import METADATA

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    if connection.dialect.name == "sqlite":  # whose driver begins none by itself where tables are made
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
