# parse.py: the grammar of statements and of a whole file (C11 6.8, 6.9). In: preprocessed tokens. Out: for each
# function a Definition, given to a callback as soon as it is read; at the end a Unit with all objects of the file. An
# error is reported, then reading goes on after the statement or declaration it was in, so that one run shows many.
from __future__ import annotations
from functools import partial
from typing import Callable, NamedTuple
from .ctype import (Array, FunctionType, INT, Integer, LONG, Machine, Type, VOID, compatible, composite, decayed,
                    is_modified)
from .declare import AUTO, Attributes, Declarations, Declarator, Signature, Specifiers, in_mode
from .express import Meaning, Scope, Typedef
from .lex import Diagnostics, END, FIRST, Failure, IDENTIFIER, PRAGMA, STRING, Token
from .tree import Label, Node, Object

class Definition(NamedTuple):
  """A function with its body."""
  object: Object
  params: list[Object]
  body: Node
  addressed: list[Label]               # labels whose address is taken
  calls_setjmp: bool

class Unit(NamedTuple):
  """What a file consists of, besides function bodies."""
  objects: list[Object]
  assembly: list[str]                  # asm("..") between functions

class Case(NamedTuple):
  low: int
  high: int

class Switch:
  """cases and default: filled in while the body is read."""
  def __init__(self, type: Integer, inside: list[Meaning]):
    self.type, self.inside = type, inside                # inside: what is declared where it stands
    self.cases: list[Node] = []
    self.default: Node | None = None

class Operand(NamedTuple):
  """Of an asm statement."""
  constraint: str
  node: Node

SETJMP = frozenset({"setjmp", "_setjmp", "sigsetjmp", "__sigsetjmp", "__builtin_setjmp", "vfork"})

class Parser(Declarations):
  def __init__(self, tokens: list[Token], machine: Machine, diagnostics: Diagnostics,
               define: Callable[[Definition], None]):
    super().__init__(tokens, machine, diagnostics)
    self.define = define
    self.externals: dict[str, Object] = {}             # linkage: symbol -> the object that all declarations share
    self.assembly: list[str] = []
    self.around: list[Switch | None] = []              # the loops (None) and switches that this statement is in
    self.calls_setjmp = False

  # ---- the whole file ----

  def file(self) -> Unit:
    """file = { function-definition | declaration | "asm" "(" string ")" ";" | ";" }"""
    while self.token.kind is not END:
      before = self.at
      try: self.external_declaration()
      except Failure as e: self.recover_outside(e, before)
    objects = [*self.externals.values(), *self.statics]
    self.check_inside_out(objects)
    return Unit(objects, self.assembly)

  def check_inside_out(self, objects: list[Object]) -> None:
    """Tentative definitions become complete; what is used but can never be defined is an error."""
    for object in objects:
      t = object.type
      if not object.is_defined or t.is_function: continue
      if isinstance(t, Array) and t.length is None: object.type = Array(t.of, 1)
      elif not t.is_complete: self.diagnostics.error(object.token, f"storage size of '{object.name}' isn't known")

  def recover_outside(self, e: Failure, start: int) -> None:
    """Goes to the end of the declaration: a semicolon outside of braces, or the brace that closes its body. A type at
    the start of a line begins another one, whatever braces are open."""
    self.diagnostics.error(e.token, e.message)
    self.scopes = self.scopes[:1]
    self.function, self.depth = None, 0
    reached = self.at
    self.go_to(start)
    depth = 0
    while self.token.kind is not END:
      text = self.advance().text
      depth += {"{": 1, "}": -1}.get(text, 0)
      done = depth <= 0 and (text == ";" or (text == "}" and self.text != ";"))
      done = done or (self.token.space == FIRST and self.starts_type(self.token) and self.token.is_outermost)
      if done and self.at > min(reached, len(self.tokens) - 2): return

  def external_declaration(self) -> None:
    if self.token.kind is PRAGMA: return self.pragma()
    if self.accept(";"): return
    if self.text == "_Static_assert": return self.static_assertion()
    if self.text == "asm": return self.file_assembly()
    if self.token.kind is not IDENTIFIER: raise self.unexpected("expected a declaration")
    base = self.specifiers()
    if self.accept(";"): return
    declared = self.declarator(base.type)
    if declared.signature is not None and self.opens_body(): return self.function_definition(base, declared)
    self.declared_list(base, declared, None)

  def opens_body(self) -> bool:
    """Whether a function's body follows, or the declarations of K&R parameters."""
    if self.text == "{": return True
    return self.text not in (",", ";", "=", "asm", "__attribute__") and self.starts_type(self.token)

  def file_assembly(self) -> None:
    self.advance()
    while self.text in ("volatile", "goto"): self.advance()
    self.assembly.append(self.parenthesized(self.text_of_strings))
    self.expect(";")

  # ---- declarations ----

  def declaration(self) -> list[Node]:
    """declaration = specifiers [ declarator [ "=" initializer ] { "," .. } ] ";" ; gives the statements that
    initialise"""
    base = self.specifiers()
    statements: list[Node] = []
    if not self.accept(";"): self.declared_list(base, self.declarator(base.type), statements)
    return statements

  def declared_list(self, base: Specifiers, declared: Declarator, statements: list[Node] | None) -> None:
    """statements: None outside of functions, else where to put the declarations."""
    while True:
      attributes = self.attributes(base.attributes.for_declarator())
      if declared.name is None: raise self.unexpected("expected identifier or '('")
      self.declare(base, declared, attributes, statements)
      if not self.accept(","): break
      declared = self.declarator(base.type)
    self.expect(";")

  def declare(self, base: Specifiers, declared: Declarator, attributes: Attributes,
              statements: list[Node] | None) -> None:
    name, t = declared.name, in_mode(declared.type, attributes.mode)
    assert name is not None, "callers have checked it"
    if base.storage == "typedef": return self.declare_type(name, t, attributes, statements)
    if t.is_void: raise Failure(name, f"variable or field '{name.text}' declared void")
    if t.plain is AUTO and self.text != "=": raise Failure(name, f"'{name.text}' needs an initializer")
    if "_Alignas" in attributes.words and 0 < (attributes.align or 0) < t.align:
      raise Failure(name, f"'_Alignas' specifiers cannot reduce alignment of '{name.text}'")
    is_automatic = statements is not None and not t.is_function and base.storage not in ("static", "extern")
    is_wrong = statements is None and base.storage in ("auto", "register") and attributes.symbol is None
    if is_wrong or "_Thread_local" in attributes.words and (t.is_function or is_automatic):
      raise Failure(name, f"'{name.text}' cannot have this storage class here")
    (self.declare_automatic if is_automatic else self.declare_static)(base, name, t, attributes, statements)

  def declare_type(self, name: Token, t: Type, attributes: Attributes, statements: list[Node] | None) -> None:
    if attributes.align is not None: t = t.qualified().aligned(attributes.align)
    old = self.scopes[-1].names.get(name.text)
    if old is not None and not (isinstance(old, Typedef) and compatible(old.type, t)):
      raise Failure(name, f"conflicting types for '{name.text}'")
    self.scopes[-1].names[name.text] = Typedef(t)
    if is_modified(t) and statements is not None: statements.append(Node("measure", VOID, name, (), t))

  def declare_automatic(self, base: Specifiers, name: Token, t: Type, attributes: Attributes,
                        statements: list[Node] | None) -> None:
    assert statements is not None, "automatic objects are in functions"
    object = Object(name.text, t, name, "automatic")
    object.is_register = base.storage == "register"
    object.align = attributes.align or 0
    object.cleanup = self.cleanup_function(attributes)
    self.check_new(name)
    self.scopes[-1].names[name.text] = object
    leaves = None
    if self.accept("="): object.type, leaves = self.initializer(t)
    object.align = max(object.align, object.type.align)
    if not object.type.is_complete and not t.is_variable:
      raise Failure(name, f"storage size of '{name.text}' isn't known")
    statements.append(Node("declare", VOID, name, (), (object, leaves)))

  def cleanup_function(self, attributes: Attributes) -> Object | None:
    if attributes.cleanup is None: return None
    found = self.find(attributes.cleanup.text)
    if not isinstance(found, Object): raise Failure(attributes.cleanup, "cleanup argument is not a function")
    return found

  def declare_static(self, base: Specifiers, name: Token, t: Type, attributes: Attributes,
                     statements: list[Node] | None) -> None:
    """Everything that is in the object file."""
    if t.is_variable: raise Failure(name, f"'{name.text}' must have a constant size")
    is_local = statements is not None and base.storage == "static" and not t.is_function
    object = self.local_static(name, t) if is_local else self.linked(base, name, t)
    self.decorate(object, base, attributes)
    if not self.accept("="):
      if not t.is_function and base.storage != "extern": object.is_defined = True
      if is_local and not t.is_complete: raise Failure(name, f"storage size of '{name.text}' isn't known")
      return
    if t.is_function: raise Failure(name, f"function '{name.text}' is initialized like a variable")
    if statements is not None and base.storage == "extern":
      raise Failure(name, f"'{name.text}' has both 'extern' and initializer")
    if object.data is not None: raise Failure(name, f"redefinition of '{name.text}'")
    object.type, object.data = self.initializer(t)
    object.is_defined = True

  def local_static(self, name: Token, t: Type) -> Object:
    self.check_new(name)
    object = self.scopes[-1].names[name.text] = self.static_object(name.text, name.text, t, name)
    return object

  def linked(self, base: Specifiers, name: Token, t: Type) -> Object:
    """The object of a name with linkage: one for all its declarations."""
    old = self.externals.get(name.text)
    here = self.scopes[-1].names.get(name.text)
    if here is not None and here is not old:
      raise Failure(name, f"'{name.text}' redeclared as different kind of symbol")
    if old is None:
      old = Object(name.text, t, name, "function" if t.is_function else "extern")
      self.externals[name.text] = old
      old.is_local_symbol = base.storage == "static"
    elif not compatible(old.type, t): self.conflict(old, name, t)
    else:
      if base.storage == "static" and not old.is_local_symbol and not old.attributes & {"implicit"}:
        raise Failure(name, f"static declaration of '{name.text}' follows non-static declaration")
      if base.storage == "" and old.is_local_symbol and not t.is_function:
        raise Failure(name, f"non-static declaration of '{name.text}' follows static declaration")
      old.type = composite(t, old.type)
    self.scopes[-1].names[name.text] = old
    return old

  def conflict(self, old: Object, name: Token, t: Type) -> None:
    if "implicit" not in old.attributes:
      raise Failure(name, f"conflicting types for '{name.text}': '{t}' was '{old.type}'")
    self.trees.warn(name, f"conflicting types for '{name.text}'")
    old.type = t

  def decorate(self, object: Object, base: Specifiers, attributes: Attributes) -> None:
    object.align = max(object.align, attributes.align or 0, object.type.align)
    object.attributes |= attributes.words
    if attributes.symbol is not None: object.symbol = attributes.symbol
    if attributes.section is not None: object.section = attributes.section
    if attributes.alias is not None: object.alias, object.is_defined = attributes.alias, True
    if "inline" in attributes.words:
      if base.storage == "extern": object.attributes.add("extern inline")
    elif object.type.is_function and base.storage != "static": object.attributes.add("external definition")

  def declare_implicitly(self, name: Token) -> Object:
    """C89: a function that was not declared returns int, unless it is one that every C compiler knows."""
    known = self.find("__builtin_" + name.text)
    t = known.type if isinstance(known, Object) else FunctionType(INT, (), False, False)
    what = "incompatible implicit declaration of built-in" if known else "implicit declaration of"
    self.trees.warn(name, f"{what} function '{name.text}'")
    object = self.externals.setdefault(name.text, Object(name.text, t, name, "function"))
    if object.token is name: object.attributes.add("implicit")
    self.scopes[0].names[name.text] = object
    return object

  # ---- functions ----

  def function_definition(self, base: Specifiers, declared: Declarator) -> None:
    """function-definition = specifiers declarator { declaration } compound-statement"""
    name, signature = declared.name, declared.signature
    if name is None or signature is None: raise self.unexpected("expected identifier")
    if base.storage not in ("", "extern", "static"):
      raise Failure(name, f"function '{name.text}' declared '{base.storage}'")
    t = declared.type
    assert isinstance(t, FunctionType), "a declarator with parameters declares a function"
    attributes = self.attributes(base.attributes.for_declarator())
    if signature.names: signature = self.old_style_parameters(signature)
    object = self.linked(base, name, t)
    self.decorate(object, base, attributes)
    if object.is_defined and object.data is not None: raise Failure(name, f"redefinition of '{name.text}'")
    object.is_defined, object.data, object.alias = True, "function", None
    if signature.names: t = FunctionType(t.result, tuple(p.type for p in signature.params), False, False)
    if not t.has_prototype and object.type.has_prototype is False: object.type = t       # type: ignore[attr-defined]
    if not t.result.is_void and not t.result.is_complete: raise Failure(name, "return type is an incomplete type")
    for p in signature.params:
      if not p.type.is_complete: raise Failure(p.token, "parameter has incomplete type")
    self.function, self.labels, self.addressed, self.calls_setjmp = object, {}, [], False
    self.around = []
    self.scopes.append(signature.scope)
    body = self.compound_statement()
    self.scopes.pop()
    for label in self.labels.values(): self.check_jumps(label)
    self.function = None
    if self.diagnostics.errors: return
    self.define(Definition(object, signature.params, body, self.addressed, self.calls_setjmp))

  def old_style_parameters(self, signature: Signature) -> Signature:
    """The declarations of a K&R definition; what is not declared is an int."""
    types: dict[str, Type] = {}
    while self.text != "{":
      if not self.starts_type(self.token): raise self.unexpected("expected declaration specifiers")
      base = self.specifiers()
      for declared in self.listed(partial(self.declarator, base.type)) if self.text != ";" else ():
        if declared.name is not None: types[declared.name.text] = decayed(declared.type)
      self.expect(";")
    params = [Object(name.text, types.pop(name.text, INT), name, "automatic") for name in signature.names]
    signature.scope.names.update((p.name, p) for p in params)
    for missing in types: raise Failure(self.token, f"declaration for parameter '{missing}' but no such parameter")
    return signature._replace(params=params)

  # ---- statements ----

  def compound_statement(self) -> Node:
    """compound-statement = "{" { declaration | statement } "}" """
    token = self.expect("{")
    self.scopes.append(Scope())
    statements: list[Node] = []
    while self.text != "}" and self.token.kind is not END:
      before, scopes, depth = self.at, len(self.scopes), self.depth
      try: self.block_item(statements)
      except Failure as e:
        del self.scopes[scopes:]
        self.depth = depth
        self.recover_inside(e, before)
    self.scopes.pop()
    if self.token.kind is END: raise Failure(self.token, "expected declaration or statement at end of input")
    self.advance()
    return Node("block", VOID, token, (), statements)

  def block_item(self, statements: list[Node]) -> None:
    if self.text == "_Static_assert": self.static_assertion()
    elif self.opens_declaration(): statements += self.declaration()
    elif self.text == "__label__": self.local_labels()
    else: statements.append(self.statement())

  def opens_declaration(self) -> bool:
    """A label may be called as a type is, and __attribute__((fallthrough)); is a statement."""
    if not self.starts_type(self.token) or self.peek().text == ":": return False
    return self.text != "__attribute__" or "fallthrough" not in self.tokens[min(self.at + 3, len(self.tokens) - 1)].text

  def local_labels(self) -> None:
    self.advance()
    for name in self.listed(self.word): self.labels.pop(name.text, None)
    self.expect(";")

  def recover_inside(self, e: Failure, start: int) -> None:
    """Goes to the end of the statement."""
    self.diagnostics.error(e.token, e.message)
    reached = max(self.at, start + 1)
    depth = 0
    self.go_to(start)
    while self.token.kind is not END:
      if self.text == "}" and depth == 0: return
      text = self.advance().text
      depth += {"{": 1, "}": -1}.get(text, 0)
      if depth <= 0 and text in (";", "}") and self.at >= reached: return

  def statement(self) -> Node: return self.nested(self.one_statement)

  def one_statement(self) -> Node:
    """statement = labelled | compound | selection | loop | ( jump | asm | [ expression ] ) ";" """
    token = self.token
    if token.kind is PRAGMA:
      self.pragma()
      return Node("empty", VOID, self.token) if self.text == "}" else self.statement()
    if self.text == "{": return self.compound_statement()
    if token.kind is IDENTIFIER and self.peek().text == ":" and self.text not in ("default", "case"):
      return self.labelled()
    if self.text in STATEMENTS: return STATEMENTS[self.text](self, self.advance())
    if self.text == ";": node = Node("empty", VOID, token)
    elif self.text in JUMPS: node = JUMPS[self.text](self, self.advance())
    else: node = self.expression_statement()
    self.expect(";")
    return node

  def expression_statement(self) -> Node:
    return Node("expression", VOID, self.token, (self.trees.value(self.expression()),))

  def labelled(self) -> Node:
    """labelled = name ":" statement"""
    name = self.advance()
    self.advance()
    label = self.labels.setdefault(name.text, Label(name.text, name))
    if label.inside is not None: raise Failure(name, f"duplicate label '{name.text}'")
    label.inside = self.inside()
    while self.accept("__attribute__"): self.attribute(Attributes())
    return Node("label", VOID, name, (self.after_label(),), label)

  def after_label(self) -> Node:
    """The statement after a label; C23 allows none, or a declaration."""
    if self.text == "}": return Node("empty", VOID, self.token)
    if self.opens_declaration(): return Node("sequence", VOID, self.token, (), self.declaration())
    return self.statement()

  def case(self, token: Token) -> Node:
    """"case" constant [ "..." constant ] ":" statement"""
    switch = self.innermost_switch(token, "case label")
    low = high = switch.type.wrap(self.constant_expression("case label"))
    if self.accept("..."): high = switch.type.wrap(self.constant_expression("case label"))
    self.expect(":")
    for other in switch.cases:
      if low <= other.arg.high and other.arg.low <= high: raise Failure(token, "duplicate case value")
    node = Node("case", VOID, token, (), Case(low, high))
    switch.cases.append(node)
    node.src = (self.after_label(),)
    return node

  def default(self, token: Token) -> Node:
    """"default" ":" statement"""
    self.expect(":")
    switch = self.innermost_switch(token, "'default' label")
    if switch.default is not None: raise Failure(token, "multiple default labels in one switch")
    node = switch.default = Node("case", VOID, token)
    node.src = (self.after_label(),)
    return node

  def innermost_switch(self, token: Token, label: str) -> Switch:
    found = next((switch for switch in reversed(self.around) if switch is not None), None)
    if found is None: raise Failure(token, f"{label} not within a switch statement")
    self.check_entry(token, "switch jumps", self.inside()[len(found.inside):])
    return found

  def condition(self) -> Node: return self.trees.condition(self.parenthesized(self.expression))

  def if_(self, token: Token) -> Node:
    """"if" "(" expression ")" statement [ "else" statement ]; a chain of else-ifs is a list of arms, so that it may be
    long"""
    arms, otherwise = [(self.condition(), self.statement())], None
    while otherwise is None and self.accept("else"):
      if self.accept("if"): arms.append((self.condition(), self.statement()))
      else: otherwise = self.statement()
    return Node("if", VOID, token, (), (arms, otherwise))

  def switch(self, token: Token) -> Node:
    """"switch" "(" expression ")" statement"""
    node = self.trees.promote(self.parenthesized(self.expression))
    if not isinstance(node.type, Integer): raise Failure(token, "switch quantity is not an integer")
    switch = Switch(node.type, self.inside())
    return Node("switch", VOID, token, (node, self.body(switch)), switch)

  def body(self, switch: Switch | None = None) -> Node:
    """The statement that a loop repeats, or that a switch jumps into."""
    self.around.append(switch)
    node = self.statement()
    self.around.pop()
    return node

  def while_(self, token: Token) -> Node:
    """"while" "(" expression ")" statement"""
    return Node("for", VOID, token, (), ([], self.condition(), None, self.body()))

  def do(self, token: Token) -> Node:
    """"do" statement "while" "(" expression ")" """
    body = self.body()
    self.expect("while")
    return Node("do", VOID, token, (), ([], self.condition(), None, body))

  def for_(self, token: Token) -> Node:
    """"for" "(" ( declaration | [ expression ] ";" ) [ expression ] ";" [ expression ] ")" statement"""
    self.expect("(")
    self.scopes.append(Scope())
    if self.starts_type(self.token): first = self.declaration()
    else:
      first = [] if self.text == ";" else [self.expression_statement()]
      self.expect(";")
    test = None if self.text == ";" else self.trees.condition(self.expression())
    self.expect(";")
    step = None if self.text == ")" else self.trees.value(self.expression())
    self.expect(")")
    body = self.body()
    self.scopes.pop()
    return Node("for", VOID, token, (), (first, test, step, body))

  def goto(self, token: Token) -> Node:
    """"goto" ( name | "*" expression )"""
    if self.accept("*"):
      return Node("computed_goto", VOID, token, (self.trees.cast(self.trees.value(self.expression()), LONG),))
    name = self.word()
    label = self.labels.setdefault(name.text, Label(name.text, name))
    label.jumps.append(Node("goto", VOID, token, (), (label, self.inside())))
    return label.jumps[-1]

  def inside(self) -> list[Meaning]:
    """What is declared around here in this function, outermost first."""
    return [meaning for scope in self.scopes[1:] for meaning in scope.names.values()]

  def check_jumps(self, label: Label) -> None:
    """Each jump learns what is declared both where it starts and where it ends."""
    if label.inside is None: return self.diagnostics.error(label.token, f"label '{label.name}' used but not defined")
    for node in label.jumps:
      kept = [meaning for meaning, other in zip(label.inside, node.arg[1]) if meaning is other]
      self.check_entry(node.token, "jump", label.inside[len(kept):])
      node.arg = label, kept

  def check_entry(self, token: Token, what: str, passed: list[Meaning]) -> None:
    """passed: declarations that a jump does not execute, but what follows them."""
    if any(is_modified(meaning.type) for meaning in passed):
      self.diagnostics.error(token, f"{what} into scope of identifier with variably modified type")

  def jump(self, token: Token) -> Node:
    """"break" | "continue" """
    if not self.around or (token.text == "continue" and None not in self.around):
      raise Failure(token, f"{token.text} statement not within a loop{' or switch' * (token.text == 'break')}")
    return Node(token.text, VOID, token)

  def return_(self, token: Token) -> Node:
    """"return" [ expression ] """
    assert self.function is not None and isinstance(self.function.type, FunctionType), "statements are in functions"
    result = self.function.type.result
    if self.text == ";": return Node("return", VOID, token)
    node = self.trees.value(self.expression())
    if result.is_void:
      if not node.type.is_void: self.trees.warn(token, "'return' with a value, in function returning void")
      node = self.trees.explicit_cast(node, VOID, token)
    else: node = self.trees.assigned(node, result, token, "returning")
    return Node("return", VOID, token, (node,))

  def asm(self, token: Token) -> Node:
    """"asm" { "volatile" | "goto" | "inline" } "(" string [ ":" outputs [ ":" inputs [ ":" clobbers ] ] ] ")" """
    while self.text in ("volatile", "goto", "inline"): self.advance()
    self.expect("(")
    template = self.text_of_strings()
    sections: list[list[Operand]] = [[], []]
    for section in sections:
      if not self.accept(":"): break
      if self.token.kind is STRING or self.text == "[": section += self.listed(self.asm_operand)
    while self.text != ")" and self.token.kind is not END: self.advance()                 # clobbers
    self.expect(")")
    return Node("asm", VOID, token, (), (template, *sections))

  def asm_operand(self) -> Operand:
    if self.accept("["):
      self.advance()
      self.expect("]")
    constraint = self.text_of_strings()
    return Operand(constraint, self.parenthesized(self.expression))

  def fallthrough(self, token: Token) -> Node:
    self.attribute(Attributes())
    return Node("empty", VOID, token)

  # ---- for the grammar of expressions ----

  def identifier(self, name: Token) -> Node:
    if name.text in SETJMP: self.calls_setjmp = True
    return super().identifier(name)

  def compound_literal(self, type: Type, token: Token) -> Node:
    """compound-literal = "(" type-name ")" "{" elements "}" """
    if type.is_variable: raise Failure(token, "compound literal has variable size")
    type, leaves = self.initializer(type)
    if not type.is_complete: raise Failure(token, f"invalid use of incomplete type '{type}'")
    if self.function is None: object = self.static_object("", ".compound", type, token, leaves)
    else: object = Object("", type, token, "automatic")
    object.align = type.align
    return Node("compound", type, token, (), (object, leaves))

Read = Callable[[Parser, Token], Node]
STATEMENTS: dict[str, Read] = {"if": Parser.if_, "switch": Parser.switch, "while": Parser.while_, "for": Parser.for_,
                               "case": Parser.case, "default": Parser.default}
JUMPS: dict[str, Read] = {                                              # and others that a semicolon ends
  "do": Parser.do, "goto": Parser.goto, "break": Parser.jump, "continue": Parser.jump, "return": Parser.return_,
  "asm": Parser.asm, "__attribute__": Parser.fallthrough}
