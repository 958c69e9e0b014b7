-- Run once, by Postgres itself, when its volume is empty.
CREATE DATABASE dagster;
CREATE DATABASE label_studio;
