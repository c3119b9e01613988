"""What a reader gets, before it is rendered: tables, notes, charts as data, JSON documents."""
