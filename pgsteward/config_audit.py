"""What an index audit is told: indexes and constraints that must be there, migrations, replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from pgsteward import config_checks as checks
from pgsteward.config_stores import Secret
from pgsteward.config_types import Conninfo, Model, Number, Seconds, Switch
from pgsteward.postgres_names import split_qualified

Name = Annotated[str, Field(min_length=1), AfterValidator(checks.qualified_name)]
Columns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Sql = Annotated[str, Field(min_length=1)]


class RequiredIndex(Model):
    """An index by what it is. Everything is written as in ``CREATE INDEX``; PostgreSQL itself reads it.

    Attributes:
        name: What it is called; without it one of any name will do.
        columns: Columns or expressions, with operator class and order where these matter:
            ``"lower(email)"``, ``"created_at DESC"``, ``"title gin_trgm_ops"``.
        where: Its predicate.
        unique: An index that is unique serves one that need not be, not the other way round.
    """

    table: Name
    columns: Columns
    name: Name | None = None
    where: Sql | None = None
    unique: Switch = False
    nulls_not_distinct: Switch = False
    method: Name = "btree"
    include: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _in_the_schema_of_its_table(self) -> Self:
        if self.name is not None:
            schema, _ = split_qualified(self.name, default_schema="")
            if schema not in ("", split_qualified(self.table)[0]):
                raise ValueError(
                    f"{self.name}: an index lies in the schema of its table; write its name only"
                )
        if self.nulls_not_distinct and not self.unique:
            raise ValueError("nulls_not_distinct is for unique indexes; add unique = true, or take it out")
        return self

    @property
    def label(self) -> str:
        """What results call it."""
        if self.name is not None:
            return self.name
        where = f" WHERE {self.where}" if self.where else ""
        return f"{self.table} ({', '.join(self.columns)}){where}"


class RequiredConstraint(Model):
    """A constraint by what it says, or by its name alone.

    Attributes:
        name: What it is called; without it one of any name will do.
        check: The condition of a CHECK, as in SQL.
        unique: Columns.
        not_null: A column.
        foreign_key: Columns that refer to `references_columns` of the table `references`, which are its
            primary key where they are left out.
    """

    table: Name
    name: Name | None = None
    check: Sql | None = None
    unique: tuple[Name, ...] = ()
    not_null: Name | None = None
    foreign_key: tuple[Name, ...] = ()
    references: Name | None = None
    references_columns: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [self.check, self.unique, self.not_null, self.foreign_key]
        given = sum(bool(kind) for kind in kinds)
        if given > 1 or not (given or self.name):
            raise ValueError(
                "give one of check, unique, not_null, foreign_key; or the name of one that must be there"
            )
        if bool(self.foreign_key) != (self.references is not None):
            raise ValueError("foreign_key and references go together; give both, or none")
        if self.references_columns and len(self.references_columns) != len(self.foreign_key):
            raise ValueError("references_columns must be as many as the columns of foreign_key")
        return self

    @property
    def label(self) -> str:
        """What results call it."""
        if self.name is not None:
            return self.name
        said = {
            "CHECK": self.check,
            "UNIQUE": ", ".join(self.unique),
            "NOT NULL": self.not_null,
            "FOREIGN KEY": ", ".join(self.foreign_key),
        }
        return next(f"{self.table} {kind} ({text})" for kind, text in said.items() if text)


class AlembicConfig(Model):
    """Where the application's migrations lie. Its ``env.py`` is never run.

    Attributes:
        script_location: The folder that has ``versions`` in it: an absolute path, or ``package:folder``.
        version_locations: Where migrations lie elsewhere: absolute paths.
        version_table_schema: Where it is not found by itself.
    """

    script_location: Annotated[str, AfterValidator(checks.script_location)]
    version_locations: tuple[Annotated[Path, AfterValidator(checks.client_dir)], ...] = ()
    version_table: Annotated[str, Field(min_length=1)] = "alembic_version"
    version_table_schema: Annotated[str, Field(min_length=1)] | None = None


class ReplicaConfig(Model):
    """A standby whose counters say whether an index is used there."""

    conninfo: Conninfo
    password: Secret | None = None


def label_of(required: str | RequiredIndex) -> str:
    """Return what results call a required index."""
    return required if isinstance(required, str) else required.label


def _as_table(value: Any) -> Any:
    return {"conninfo": value} if isinstance(value, str) else value


class IndexAuditConfig(Model):
    """What the application relies on, and what counts as evidence that an index is not used.

    Attributes:
        replicas: None means that nobody has said whether there are any.
        min_observed_days: How long an index must have been watched before it may be called unused.
        count_timeout_s: For counting the rows that violate one constraint.
        max_wait_s: How long the build of an index may be held up by others.
        exclude: Indexes, tables and constraints that nothing is said about.
    """

    required: tuple[
        Annotated[
            Annotated[Name, Tag("<name>")] | Annotated[RequiredIndex, Tag("<index>")],
            Discriminator(lambda value: "<index>" if isinstance(value, dict | RequiredIndex) else "<name>"),
        ],
        ...,
    ] = ()
    constraints: tuple[RequiredConstraint, ...] = ()
    alembic: AlembicConfig | None = None
    replicas: tuple[ReplicaConfig, ...] | None = None
    min_observed_days: Number = Field(30.0, ge=0)
    count_timeout_s: Seconds = 60.0
    max_wait_s: Seconds = 600.0
    exclude: tuple[str, ...] = ()

    @field_validator("replicas", mode="before")
    @classmethod
    def _conninfo_alone(cls, value: Any) -> Any:
        return [_as_table(each) for each in value] if isinstance(value, list | tuple) else value
